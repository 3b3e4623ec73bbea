"""The parquet files of the lake: which of them hold a date's rows, and how one is written.

A compaction names its sources in a plan before the merged file appears; from then until they are
deleted, both are in the folder. Whoever lists files by this module sees each row in one of them.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Final

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq

from stores.files import written_whole

_log: Final = logging.getLogger("tollgate.lake")


class Plan(msgspec.Struct, frozen=True):
    """A compaction under way: the merged file, and the files that it replaces, by name."""

    target: str
    sources: list[str]


_decode_plan: Final = msgspec.json.Decoder(Plan).decode


def files_of_date(folder: Path) -> list[Path]:
    """The files that hold the rows of one folder, each row in one of them, by name.

    Plans are read before and after the files are listed, so that one that comes or goes meanwhile
    is known.
    """
    plans = read_plans(folder)
    files = {path.name: path for path in folder.glob("[!._]*.parquet")}
    plans |= read_plans(folder)
    for target, sources in plans.items():
        if target in files:
            for name in sources:
                files.pop(name, None)
    return [files[name] for name in sorted(files)]


def parquet_files(path: Path) -> list[Path]:
    """The files that hold the rows of a file or of a folder of any depth, sorted, without unfinished ones."""
    if path.is_file():
        return [path]
    folders = {file.parent for file in path.rglob("*.parquet")}
    shown = [
        folder
        for folder in folders
        if not any(part.startswith((".", "_")) for part in folder.relative_to(path).parts)
    ]
    return sorted(file for folder in shown for file in files_of_date(folder))


def readable(files: Sequence[Path], schema: pa.Schema, needed: Collection[str] = ()) -> list[Path]:
    """Those of `files` that a reader who expects `schema` can read whole, in order.

    A damaged file, or one that has one of these columns in another type or lacks a `needed` one, is passed
    over with a warning that says why: it holds up no other. Readers move nothing.
    """
    found = []
    for path in files:
        reason = _strange(path, schema, needed)
        if reason is None:
            found.append(path)
        else:
            _log.warning("%s is passed over: %s", path.name, reason)
    return found


def _strange(path: Path, schema: pa.Schema, needed: Collection[str]) -> str | None:
    """Why nobody who expects `schema` can read `path`, None if he can. Pages are checked where they are
    read: a file whose footer is whole and whose pages are not is found then (`whole`)."""
    try:
        held = pq.read_schema(path)
    except (OSError, pa.ArrowException) as error:
        return f"no parquet that can be read ({type(error).__name__})"
    missing = [name for name in needed if name not in held.names]
    if missing:
        return f"has no column {missing[0]}"
    for name in held.names:
        place = schema.get_field_index(name)
        if held.names.count(name) > 1:
            return f"has the column {name} twice"
        if place >= 0 and not held.field(name).type.equals(schema.field(place).type):
            return f"has the column {name} in another type than it is written in"
    return None


def whole(files: Sequence[Path]) -> list[Path]:
    """Those of `files` all pages of which can be decoded; for when reading them together has failed."""
    found = []
    for path in files:
        try:
            with pq.ParquetFile(path) as file:
                for _ in file.iter_batches(batch_size=65_536):
                    pass
        except (OSError, pa.ArrowException) as error:
            _log.warning("%s is passed over: its pages are damaged (%s)", path.name, type(error).__name__)
        else:
            found.append(path)
    return found


def read_plans(folder: Path) -> dict[str, list[str]]:
    """Names of merged files, here or to come, with the names of the files that each replaces."""
    plans = {}
    for path in folder.glob("_compact-*.json"):
        try:
            planned = _decode_plan(path.read_bytes())
        except FileNotFoundError:  # just completed
            continue
        except (OSError, msgspec.DecodeError, RecursionError) as error:
            _log.warning("what is no plan of compaction is passed over: %s", type(error).__name__)
            continue
        plans[planned.target] = planned.sources
    return plans


def write_parquet(table: pa.Table, path: Path, *, durable: bool = True) -> Path:
    """Write `table` to `path` so that a reader sees the old file or the whole new one.

    A `durable` file survives a power cut once this returns; what can be made again need not wait.
    """
    with written_whole(path, durable=durable) as unfinished:
        pq.write_table(table, unfinished, compression="zstd")
    return path
