"""Reading anybody's files in batches of bounded size: which files there are, and what each kind needs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Final
from urllib.parse import unquote

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from datasets.batches import BATCH_ROWS, BadLine, SourceBatch, require
from datasets.documents import DOCUMENT_SUFFIXES, read_documents
from datasets.fields import MappingError
from datasets.mapping import SourceFormat
from datasets.text_files import TEXT_SUFFIXES, header, not_in, read_delimited

__all__ = ["BadLine", "SourceBatch", "column_names", "read_batches", "source_files"]

_PARQUET: Final = (".parquet", ".pq")
_READ: Final = (*_PARQUET, *TEXT_SUFFIXES, *DOCUMENT_SUFFIXES)
#: One line that makes a readable file of another kind.
_CONVERT: Final = {
    ".zip": "unzip it first",
    ".tar": "unpack it first",
    ".tgz": "unpack it first",
    ".tar.gz": "unpack it first",
    ".xlsx": "save it as CSV (UTF-8) from the spreadsheet",
    ".xls": "save it as CSV (UTF-8) from the spreadsheet",
    ".ods": "save it as CSV (UTF-8) from the spreadsheet",
    ".pkl": "a pickle runs code when it is read: have its owner write parquet (frame.to_parquet)",
    ".pickle": "a pickle runs code when it is read: have its owner write parquet (frame.to_parquet)",
    ".avro": "have its owner write parquet (spark.read.format('avro').load(...).write.parquet(...))",
    ".orc": "have its owner write parquet (spark.read.orc(...).write.parquet(...))",
    ".feather": "pyarrow.parquet.write_table(pyarrow.feather.read_table(name), 'name.parquet')",
    ".arrow": "pyarrow.parquet.write_table(pyarrow.feather.read_table(name), 'name.parquet')",
    ".sqlite": "export the table as CSV: sqlite3 -header -csv FILE 'select * from ...'",
    ".db": "export the table as CSV: sqlite3 -header -csv FILE 'select * from ...'",
}
#: How Spark and Hive write a partition's key that is null.
_NO_KEY: Final = "__HIVE_DEFAULT_PARTITION__"


def source_files(path: Path) -> list[Path]:
    """The files at or under `path` that can be read, by name; MappingError if none.

    Folders inside are looked into (as Spark writes: date=2019-01-01/part-0.parquet) where none lies directly
    under `path`.
    """
    if path.is_file():
        return [path]
    found = sorted(file for file in path.glob("[!._]*") if file.is_file() and _kind(file) is not None)
    if not found:
        found = sorted(
            file for file in path.rglob("*")
            if file.is_file() and _kind(file) is not None
            and not any(part.startswith((".", "_")) for part in file.relative_to(path).parts)
        )  # fmt: skip
    if not found:
        others = sorted({file.suffix for file in path.glob("*") if file.suffix in _CONVERT})
        hint = "".join(f"; {end}: {_CONVERT[end]}" for end in others)
        raise MappingError(f"{path} holds no file that ends in {', '.join(_READ)}{hint}")
    return found


def read_batches(
    path: Path, form: SourceFormat, needed: set[str], root: Path | None = None
) -> Iterator[SourceBatch]:
    """The rows of one file. Text columns are read as text, so that nothing is rounded or cut.

    Names of folders between `root` and the file, such as date=2019-01-01, are columns too. Raises
    MappingError when the file lacks a column of `needed` or cannot be read.
    """
    kind = _kind(path)
    if kind is None:
        convert = next((line for end, line in _CONVERT.items() if path.name.lower().endswith(end)), None)
        ends = f"{path.name} should end in {', '.join(_READ)}"
        raise MappingError(ends + (f": {convert}" if convert else ""))
    keys = {name: value for name, value in _keys(path, root).items() if name in needed}
    own = needed - set(keys)
    try:
        if kind == "parquet":
            batches = _parquet(path, own)
        elif kind == "text":
            batches = read_delimited(path, form, own)
        else:
            batches = read_documents(path, form, own)
        for source in batches:
            yield _with_keys(source, keys)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError, OSError, EOFError, UnicodeError) as error:
        raise MappingError(f"{path.name} cannot be read: {_reason(error, form)}") from None


def column_names(path: Path, form: SourceFormat, root: Path | None = None) -> list[str]:
    """The columns of a file, with those that its folders name."""
    kind = _kind(path)
    if kind == "text":
        names = header(path, form)
    else:
        first = next(read_batches(path, form, set(), root), None)
        names = [] if first is None else first.batch.schema.names
    return [*names, *(name for name in _keys(path, root) if name not in names)]


def _reason(error: Exception, form: SourceFormat) -> str:
    first = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
    return not_in(form.encoding) if isinstance(error, UnicodeError) or "UTF8" in first else first


def _kind(path: Path) -> str | None:
    name = path.name.lower()
    if name.endswith(_PARQUET):
        return "parquet"
    if name.endswith(DOCUMENT_SUFFIXES):
        return "documents"
    return "text" if name.endswith(TEXT_SUFFIXES) else None


def _keys(path: Path, root: Path | None) -> dict[str, str | None]:
    """What the folders between `root` and the file say, such as date=2019-01-01."""
    folders = (
        path.parent.parts
        if root is None
        else path.parent.relative_to(root.parent).parts
        if root.is_dir()
        else ()
    )
    pairs = (part.split("=", 1) for part in folders if "=" in part)
    return {key: None if value == _NO_KEY else unquote(value) for key, value in pairs}


def _with_keys(source: SourceBatch, keys: dict[str, str | None]) -> SourceBatch:
    batch = source.batch
    for name, value in keys.items():
        if name not in batch.schema.names:
            batch = batch.append_column(name, pa.array([value] * batch.num_rows, pa.string()))
    return SourceBatch(source.file, source.rows, batch, source.bad_lines)


def _parquet(path: Path, needed: set[str]) -> Iterator[SourceBatch]:
    with pq.ParquetFile(path) as file:
        require(path, file.schema_arrow.names, needed)
        first = 1
        for batch in file.iter_batches(batch_size=BATCH_ROWS):
            yield SourceBatch(path.name, np.arange(first, first + batch.num_rows), batch)
            first += batch.num_rows
