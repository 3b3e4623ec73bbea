"""Compaction of the arrival log: the small files of closed hours become one per date.

The flow writes a file per partition and snapshot. Files that have not changed for a while are
merged per date and run. A plan says first which files the merged one will replace: readers that
list a date by `stores.lake_files.files_of_date` see each row once at any moment, and a run that is
interrupted is completed by the next. Run one at a time.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from stores.files import write_whole
from stores.lake import TRANSACTIONS
from stores.lake_files import files_of_date, write_parquet
from stores.settings import settings
from streaming.ingest.arrival_log import ARRIVAL_FILE

#: Fewer small files than this in a date are left alone.
_FEWEST = 8


def compact(lake: Path, *, older_than_s: float = 3_600, now: float | None = None) -> tuple[int, int]:
    """Merge arrival files older than `older_than_s` (wall clock); return (files merged, files written)."""
    now = time.time() if now is None else now
    merged = written = 0
    for folder in sorted((lake / TRANSACTIONS).glob("date=*")):
        finish_interrupted(folder)
        sources = [
            path
            for path in files_of_date(folder)
            if ARRIVAL_FILE.fullmatch(path.name) and path.stat().st_mtime < now - older_than_s
        ]
        if len(sources) >= _FEWEST:
            _merge(folder, sources)
            merged += len(sources)
            written += 1
    return merged, written


def finish_interrupted(folder: Path) -> None:
    """Complete what a run that was cut short had planned in `folder`, or forget it."""
    for plan in folder.glob("_compact-*.json"):
        planned = json.loads(plan.read_text())
        if (folder / planned["target"]).exists():
            for name in planned["sources"]:
                (folder / name).unlink(missing_ok=True)
        plan.unlink()


def _merge(folder: Path, sources: list[Path]) -> None:
    names = [path.name for path in sources]
    digest = hashlib.blake2b("\n".join(names).encode(), digest_size=8).hexdigest()
    target = folder / f"arrivals-{digest}.parquet"
    plan = folder / f"_compact-{digest}.json"
    write_whole(plan, json.dumps({"target": target.name, "sources": names}), durable=True)
    table = pa.concat_tables([pq.ParquetFile(path).read() for path in sources])
    write_parquet(table.sort_by("ingest_seq"), target)
    finish_interrupted(folder)


def main(arguments: list[str] | None = None) -> int:
    """Merge the arrival log's small files of closed hours."""
    parser = argparse.ArgumentParser(prog="python -m streaming.ingest.compact", description=main.__doc__)
    parser.add_argument(
        "--older-than", type=float, default=3_600, metavar="SECONDS", help="default: one hour"
    )
    chosen = parser.parse_args(arguments)
    merged, written = compact(settings().lake, older_than_s=chosen.older_than)
    print(f"{merged} small files became {written}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
