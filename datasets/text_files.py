"""CSV and its kin, in any encoding, plain or compressed: every column as text."""

from __future__ import annotations

import codecs
import csv
import io
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.csv as pacsv

from datasets.batches import BadLine, Ints, SourceBatch, require
from datasets.fields import MappingError
from datasets.mapping import SourceFormat

_TEXT_BLOCK: Final = 16 << 20
TEXT_SUFFIXES: Final = (".csv", ".csv.gz", ".csv.zst", ".tsv", ".tsv.gz", ".txt", ".txt.gz", ".psv")
#: How files begin that say which Unicode they are in.
_MARKS: Final = {codecs.BOM_UTF16_LE: "utf-16", codecs.BOM_UTF16_BE: "utf-16", codecs.BOM_UTF8: "utf8"}
_HEADER_BYTES: Final = 1 << 20


def header(path: Path, form: SourceFormat) -> list[str]:
    """The names of the columns; with `duplicates: number` the second of a name is `name.1`.

    MappingError when there are none.
    """
    with pa.input_stream(str(path), compression=_compression(path)) as stream:
        raw = stream.read(_HEADER_BYTES)
    if not raw.strip():
        raise MappingError(f"{path.name} is empty")
    encoding = encoding_of(raw, form)
    try:  # what is cut in the middle of a character is far behind the header
        text = codecs.getincrementaldecoder(encoding)().decode(raw).removeprefix("\ufeff")
    except UnicodeError:
        raise MappingError(f"{path.name} cannot be read: {not_in(encoding)}") from None
    lines = csv.reader(io.StringIO(text, newline=""), delimiter=_delimiter(path, form), quotechar=form.quote)
    names = [name.strip() for name in next(lines, [])]
    if len(names) < 2:
        raise MappingError(
            f"{path.name} has one column, {names[0][:60]!r}: say source: delimiter, such as ';' or '\\t'"
            if names
            else f"{path.name} has no header"
        )
    return _numbered(names) if form.duplicates == "number" else names


def not_in(encoding: str) -> str:
    """What is said of a file that is no text in `encoding`."""
    return f"it is not text in {encoding}: say source: encoding, such as cp1252, latin-1 or utf-16"


def encoding_of(raw: bytes, form: SourceFormat) -> str:
    """The encoding that the first bytes say; otherwise the mapping's."""
    return next((name for mark, name in _MARKS.items() if raw.startswith(mark)), form.encoding)


def read_delimited(path: Path, form: SourceFormat, needed: set[str]) -> Iterator[SourceBatch]:
    """The rows of one file, in batches; MappingError when a column of `needed` is not there."""
    names = header(path, form)
    require(path, names, needed)
    with pa.input_stream(str(path), compression=_compression(path)) as stream:
        encoding = encoding_of(stream.read(4), form)
    unique = [f"{place}" for place in range(len(names))]
    bad: list[BadLine] = []

    def skip(row: Any) -> str:
        reason = f"has {row.actual_columns} columns where the header has {row.expected_columns}"
        bad.append(BadLine(row.number - 1, reason, row.text))
        return "skip"

    batches = pacsv.open_csv(
        pa.input_stream(str(path), compression=_compression(path)),
        read_options=pacsv.ReadOptions(
            use_threads=False, block_size=_TEXT_BLOCK, encoding=encoding, column_names=unique, skip_rows=1
        ),
        parse_options=pacsv.ParseOptions(
            delimiter=_delimiter(path, form), quote_char=form.quote, newlines_in_values=True,
            invalid_row_handler=skip,
        ),
        convert_options=pacsv.ConvertOptions(
            column_types=dict.fromkeys(unique, pa.string()),
            strings_can_be_null=True,
            null_values=[""],
            quoted_strings_can_be_null=True,
        ),
    )  # fmt: skip
    good = reported = 0
    with batches:
        for batch in batches:
            rows = _numbers(np.arange(good, good + batch.num_rows), [line.row for line in bad])
            good += batch.num_rows
            yield SourceBatch(path.name, rows, batch.rename_columns(names), bad[reported:])
            reported = len(bad)
    if reported < len(bad):
        nothing = pa.RecordBatch.from_arrays([pa.array([], pa.string())] * len(names), names=names)
        yield SourceBatch(path.name, np.zeros(0, dtype=np.int64), nothing, bad[reported:])


def _compression(path: Path) -> str | None:
    return {".gz": "gzip", ".zst": "zstd"}.get(path.suffix.lower())


def _delimiter(path: Path, form: SourceFormat) -> str:
    if form.delimiter == ",":
        return "\t" if ".tsv" in path.name.lower() else "|" if ".psv" in path.name.lower() else ","
    return form.delimiter


def _numbered(names: list[str]) -> list[str]:
    seen: Counter[str] = Counter()
    found = []
    for name in names:
        found.append(f"{name}.{seen[name]}" if seen[name] else name)
        seen[name] += 1
    return found


def _numbers(good: Ints, bad: list[int]) -> Ints:
    """Row numbers of the `good`-th well-formed rows (from 0), when `bad` row numbers were skipped."""
    gaps = np.sort(np.array(bad, dtype=np.int64)) - 1 - np.arange(len(bad))
    return good + np.searchsorted(gaps, good, side="right") + 1
