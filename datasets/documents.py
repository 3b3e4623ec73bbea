"""JSON lines, JSON documents and XML as columns: a nested field is a path, `data.object.amount`.

Numbers stay as they are written (12.30 is no float here). XML with a document type is refused: entities are
a way to blow a reader up.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final
from xml.etree.ElementTree import Element, ParseError  # the parser itself is defusedxml's

import numpy as np
import pyarrow as pa

from datasets.batches import BadLine, SourceBatch, require
from datasets.fields import MappingError
from datasets.mapping import SourceFormat

DOCUMENT_SUFFIXES: Final = (".jsonl", ".ndjson", ".json", ".jsonl.gz", ".ndjson.gz", ".xml")
_BATCH: Final = 20_000
#: A whole document (.json, .xml) is held in memory.
_LARGEST: Final = 256 << 20
_DEEPEST: Final = 20

Row = dict[str, str | None]


def read_documents(path: Path, form: SourceFormat, needed: set[str]) -> Iterator[SourceBatch]:
    """The records of one file, in batches. A record's columns are those that `needed` names, or that any has.

    MappingError when the file is no such document, or no record has a column of `needed`.
    """
    rows: list[Row] = []
    numbers: list[int] = []
    bad: list[BadLine] = []
    found: set[str] = set()
    for number, row in enumerate(_records(path, form), 1):
        if isinstance(row, BadLine):
            bad.append(row)
            continue
        found.update(row)
        rows.append(row)
        numbers.append(number)
        if len(rows) == _BATCH:
            yield _batch(path, rows, numbers, needed, bad)
            rows, numbers, bad = [], [], []
    require(path, sorted(found), needed)
    if rows or bad:
        yield _batch(path, rows, numbers, needed or found, bad)


def _batch(
    path: Path, rows: list[Row], numbers: list[int], names: set[str], bad: list[BadLine]
) -> SourceBatch:
    columns = {name: pa.array([row.get(name) for row in rows], pa.string()) for name in sorted(names)}
    return SourceBatch(path.name, np.array(numbers, dtype=np.int64), pa.RecordBatch.from_pydict(columns), bad)


def _records(path: Path, form: SourceFormat) -> Iterator[Row | BadLine]:
    name = path.name.lower()
    if name.endswith((".json", ".xml")):
        if path.stat().st_size > _LARGEST:
            raise MappingError(
                f"{path.name} is larger than {_LARGEST >> 20} MiB: write JSON lines (jq -c '.[]')"
            )
        read = _xml_records if name.endswith(".xml") else _json_records
        yield from read(path, form)
        return
    opened = gzip.open if name.endswith(".gz") else open
    with opened(path, "rb") as lines:
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            try:
                for record in _under(_parsed(line), form.records):
                    yield _flat(record)
            except ValueError:
                yield BadLine(number, "is no JSON object", line.decode("utf-8", "replace").strip())


def _json_records(path: Path, form: SourceFormat) -> Iterator[Row]:
    try:
        content = _parsed(path.read_bytes())
    except ValueError as error:
        raise MappingError(f"{path.name} is no JSON document: {error}") from None
    try:
        for record in _under(content, form.records):
            yield _flat(record)
    except ValueError as error:
        raise MappingError(f"{path.name}: {error}") from None


def _parsed(raw: bytes) -> Any:
    return json.loads(raw.decode("utf-8-sig"), parse_float=str, parse_int=str, parse_constant=lambda _: None)


def _under(content: Any, records: str | None) -> list[Any]:
    """The records of a document: where `records` says, else itself, or each of its items."""
    for name in (records or "").split(".") if records else ():
        if not isinstance(content, dict) or name not in content:
            raise ValueError(f"has no {records}, which the mapping calls records")
        content = content[name]
    return content if isinstance(content, list) else [content]


def _flat(record: Any) -> Row:
    if not isinstance(record, dict):
        raise ValueError("a record should be an object")
    row: Row = {}
    _into(row, "", record, 0)
    return row


def _into(row: Row, prefix: str, value: Any, depth: int) -> None:
    if depth > _DEEPEST:
        raise ValueError("a record is nested too deeply")
    if isinstance(value, dict | list):
        items = value.items() if isinstance(value, dict) else enumerate(value)
        for name, inner in items:
            _into(row, f"{prefix}.{name}" if prefix else str(name), inner, depth + 1)
    else:
        row[prefix] = value if value is None or isinstance(value, str) else json.dumps(value)


def _xml_records(path: Path, form: SourceFormat) -> Iterator[Row]:
    import defusedxml.ElementTree as safe
    from defusedxml import DefusedXmlException

    try:
        root: Element = safe.fromstring(path.read_bytes(), forbid_dtd=True)
    except (ParseError, DefusedXmlException) as error:
        raise MappingError(f"{path.name} is no XML that can be read: {type(error).__name__}") from None
    if form.records is None:
        raise MappingError(f"{path.name}: say source: records, the name of the element that is one record")
    found = [each for each in root.iter() if _local(each) == form.records]
    if not found:
        raise MappingError(f"{path.name} has no element {form.records}, which the mapping calls records")
    for element in found:
        row: Row = {}
        _element_into(row, "", element)
        yield row


def _element_into(row: Row, prefix: str, element: Element) -> None:
    """Children by names without namespaces; an attribute is ``path@name``, the second of a name `name.1`."""
    for name, value in element.attrib.items():
        row[f"{prefix}@{name.rpartition('}')[2]}"] = value
    seen: dict[str, int] = {}
    for child in element:
        name = _local(child)
        count = seen[name] = seen.get(name, -1) + 1
        path = f"{prefix}.{name}" if prefix else name
        _element_into(row, f"{path}.{count}" if count else path, child)
    if not seen and prefix:
        row[prefix] = (element.text or "").strip() or None


def _local(element: Element) -> str:
    return str(element.tag).rpartition("}")[2]
