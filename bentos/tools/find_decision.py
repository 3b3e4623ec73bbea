"""One decision as it was made: `python -m bentos.tools.find_decision ID`.

Looks the transaction up in the decision log: the journal first, then the hourly files, the newest first. The
service asks it in a process of its own for `GET /v1/explain`, since reading parquet takes more memory and
time than answering payments leaves.
"""

from __future__ import annotations

import argparse
import math
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import msgspec
import numpy as np

from bentos.log.decision_log import read_entries
from machine.contained import bound_this_process
from stores.decisions import (
    MAPS,
    RECORD,
    TIMES,
    VECTOR_COLUMN,
    decisions_folder,
    journal_folder,
)
from stores.declared import served_vector
from stores.files import write_whole
from stores.lake_files import parquet_files
from stores.settings import settings

_MEMORY: Final = 1_500_000_000
_SECONDS: Final = 20
#: Columns that are nobody's business beside the decision: the chain's, and what belongs to its writer.
_LEFT_OUT: Final = frozenset({"series", "sequence", "key", "previous_hash", "hash", "date", "hour", "client"})

_decode = msgspec.msgpack.Decoder(list[Any]).decode


def find_decision(home: Path, transaction_id: str) -> dict[str, Any] | None:
    """The newest decision on a transaction, as JSON values by column, `features` by name (unknown ones left
    out); None if the log does not hold it."""
    return _in_journal(journal_folder(home), transaction_id) or _in_files(home, transaction_id)


def _in_journal(folder: Path, transaction_id: str) -> dict[str, Any] | None:
    place = RECORD.index("transaction_id")
    found = None
    for segment in sorted(folder.glob("*.*"), key=lambda path: path.name):
        if segment.suffix not in (".open", ".ready"):
            continue
        try:
            for record, _ in read_entries(segment):
                row = _decode(record)
                if row[place] == transaction_id:
                    found = row
        except FileNotFoundError:  # made into a file meanwhile, where it is looked for next
            continue
    if found is None:
        return None
    values = dict(zip(RECORD, found, strict=True))
    vector = np.frombuffer(values.pop(VECTOR_COLUMN), "<f8")
    for name in TIMES:
        if values[name] is not None:
            values[name] = _text(datetime.fromtimestamp(values[name] / 1e6, UTC))
    values["overlaid"] = [_text(datetime.fromtimestamp(at / 1e6, UTC)) for at in values["overlaid"] or ()]
    for name in MAPS:
        values[name] = {
            key: _text(datetime.fromtimestamp(value / 1e6, UTC)) if name == "view_timestamps" else value
            for key, value in values[name]
        }
    return _shown(values, dict(zip(served_vector(), vector.tolist(), strict=False)))


def _in_files(home: Path, transaction_id: str) -> dict[str, Any] | None:
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    for path in reversed(parquet_files(decisions_folder(home))):
        file = pq.ParquetFile(path)
        for group in range(file.num_row_groups):
            ids = file.read_row_group(group, columns=["transaction_id"]).column(0)
            at = pc.index(ids, transaction_id).as_py()
            if at < 0:
                continue
            row = file.read_row_group(group).slice(at, 1)
            served = set(served_vector())
            features = {name: row.column(name)[0].as_py() for name in row.column_names if name in served}
            values = {name: row.column(name)[0].as_py() for name in row.column_names if name not in served}
            for name in MAPS:
                values[name] = dict(values[name])
            return _shown(values, features)
    return None


def _shown(values: dict[str, Any], features: dict[str, float | None]) -> dict[str, Any]:
    known = {name: value for name, value in features.items() if value is not None and not math.isnan(value)}
    shown = {name: _plain(value) for name, value in values.items() if name not in _LEFT_OUT}
    return shown | {"features": known}


def _plain(value: Any) -> Any:
    if isinstance(value, datetime):
        return _text(value)
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, list) else value


def _text(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat().replace("+00:00", "Z")


def main(argv: list[str] | None = None) -> int:
    """Print the decision as JSON, or write it to a file; 1 if the log does not hold it."""
    parser = argparse.ArgumentParser(
        prog="python -m bentos.tools.find_decision", description="One decision as it was made."
    )
    parser.add_argument("transaction_id", help="as it stands in the log, behind the client's id space")
    parser.add_argument("--out", type=Path, help="write it there, within bounds of memory and time")
    options = parser.parse_args(argv)
    if options.out is not None:
        bound_this_process(memory=_MEMORY, seconds=_SECONDS)
    found = find_decision(settings().home, options.transaction_id)
    if options.out is not None:
        write_whole(options.out, msgspec.json.encode(found))
        return 0
    if found is None:
        print(f"find-decision: the log holds no decision on {options.transaction_id}", file=sys.stderr)
        return 1
    print(msgspec.json.format(msgspec.json.encode(found), indent=1).decode())
    return 0


if __name__ == "__main__":
    sys.exit(main())
