"""Reading anybody's CSV and parquet files in batches of bounded size."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final
from urllib.parse import unquote

import numpy as np
import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.parquet as pq

from datasets.mapping import MappingError, SourceFormat

BATCH_ROWS: Final = 131_072
_TEXT_BLOCK: Final = 16 << 20
_TEXT_SUFFIXES: Final = (".csv", ".csv.gz", ".csv.zst", ".tsv", ".tsv.gz", ".txt")

#: One line that makes a readable file of another kind.
_CONVERT: Final = {
    ".zip": "unzip it first",
    ".xlsx": "save it as CSV (UTF-8) from the spreadsheet",
    ".pkl": "a pickle runs code when it is read: have its owner write parquet (frame.to_parquet)",
    ".pickle": "a pickle runs code when it is read: have its owner write parquet (frame.to_parquet)",
}

Ints = np.ndarray[Any, np.dtype[np.int64]]


@dataclass(frozen=True, slots=True)
class BadLine:
    """A line of a text file with the wrong number of columns; `row` counts data rows from 1."""

    row: int
    reason: str
    text: str


@dataclass(frozen=True, slots=True)
class SourceBatch:
    """Some rows of a file; `rows` are their numbers, counted from 1 after any header."""

    file: str
    rows: Ints
    batch: pa.RecordBatch
    bad_lines: list[BadLine] = field(default_factory=list)


def source_files(path: Path) -> list[Path]:
    """The CSV and parquet files at or directly under `path`, by name; MappingError if none."""
    if path.is_file():
        return [path]
    found = sorted(file for file in path.glob("[!._]*") if file.is_file() and _kind(file) is not None)
    if not found:  # as Spark writes: date=2019-01-01/part-0.parquet
        found = sorted(
            file for file in path.rglob("*.parquet")
            if not any(part.startswith((".", "_")) for part in file.relative_to(path).parts)
        )  # fmt: skip
    if not found:
        raise MappingError(f"{path} holds no file that ends in .parquet or {', '.join(_TEXT_SUFFIXES)}")
    return found


def read_batches(path: Path, form: SourceFormat, needed: set[str]) -> Iterator[SourceBatch]:
    """The rows of one file. Text columns are read as text, so that nothing is rounded or cut.

    Raises MappingError when the file lacks a column of `needed` or cannot be read.
    """
    kind = _kind(path)
    if kind is None:
        convert = next((line for end, line in _CONVERT.items() if path.name.lower().endswith(end)), None)
        ends = f"{path.name} should end in .parquet or {', '.join(_TEXT_SUFFIXES)}"
        raise MappingError(ends + (f": {convert}" if convert else ""))
    try:
        if kind == "parquet":
            yield from _parquet(path, needed)
        else:
            yield from _delimited(path, form, needed)
    except (pa.ArrowInvalid, OSError, UnicodeDecodeError) as error:
        first = str(error).splitlines()[0][:200]
        raise MappingError(f"{path.name} cannot be read: {first}") from None


def _kind(path: Path) -> str | None:
    name = path.name.lower()
    if name.endswith((".parquet", ".pq")):
        return "parquet"
    return "text" if name.endswith(_TEXT_SUFFIXES) else None


def _require(path: Path, present: list[str], needed: set[str]) -> None:
    missing = sorted(needed - set(present))
    if missing:
        raise MappingError(
            f"{path.name} lacks the columns {', '.join(missing)} of the mapping; it has {', '.join(present)}"
        )


def _parquet(path: Path, needed: set[str]) -> Iterator[SourceBatch]:
    with pq.ParquetFile(path) as file:
        keys = dict(part.split("=", 1) for part in path.parts[:-1] if "=" in part)
        keys = {
            key: value for key, value in keys.items() if key in needed and key not in file.schema_arrow.names
        }
        _require(path, [*file.schema_arrow.names, *keys], needed)
        first = 1
        for batch in file.iter_batches(batch_size=BATCH_ROWS):
            for key, value in keys.items():
                batch = batch.append_column(key, pa.array([unquote(value)] * batch.num_rows, pa.string()))
            yield SourceBatch(path.name, np.arange(first, first + batch.num_rows), batch)
            first += batch.num_rows


def _delimited(path: Path, form: SourceFormat, needed: set[str]) -> Iterator[SourceBatch]:
    delimiter = "\t" if form.delimiter == "," and ".tsv" in path.name.lower() else form.delimiter
    bad: list[BadLine] = []

    def skip(row: Any) -> str:
        reason = f"has {row.actual_columns} columns where the header has {row.expected_columns}"
        bad.append(BadLine(row.number - 1, reason, row.text))
        return "skip"

    def reader(types: dict[str, pa.DataType]) -> pacsv.CSVStreamingReader:
        return pacsv.open_csv(
            pa.input_stream(str(path), compression="detect"),
            read_options=pacsv.ReadOptions(use_threads=False, block_size=_TEXT_BLOCK, encoding=form.encoding),
            parse_options=pacsv.ParseOptions(
                delimiter=delimiter, newlines_in_values=True, invalid_row_handler=skip
            ),
            convert_options=pacsv.ConvertOptions(
                column_types=types,
                strings_can_be_null=True,
                null_values=[""],
                quoted_strings_can_be_null=True,
            ),
        )

    with reader({}) as sniffed:
        names = sniffed.schema.names
    _require(path, names, needed)
    bad.clear()
    good = reported = 0
    with reader(dict.fromkeys(names, pa.string())) as batches:
        for batch in batches:
            rows = _numbers(np.arange(good, good + batch.num_rows), [line.row for line in bad])
            good += batch.num_rows
            yield SourceBatch(path.name, rows, batch, bad[reported:])
            reported = len(bad)
    if reported < len(bad):
        nothing = pa.RecordBatch.from_pylist([], pa.schema([(name, pa.string()) for name in names]))
        yield SourceBatch(path.name, np.zeros(0, dtype=np.int64), nothing, bad[reported:])


def _numbers(good: Ints, bad: list[int]) -> Ints:
    """Row numbers of the `good`-th well-formed rows (from 0), when `bad` row numbers were skipped."""
    gaps = np.sort(np.array(bad, dtype=np.int64)) - 1 - np.arange(len(bad))
    return good + np.searchsorted(gaps, good, side="right") + 1
