"""Before any row is read: are the files whole, and do they have the columns they should?"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import pyarrow as pa
import pyarrow.parquet as pq

from fraud.features.entities import ENTITY_BY_NAME
from monitoring.gates.checks import Failure
from stores.declared import batch_view_in, batch_views
from stores.lake_files import parquet_files

TIME: Final = pa.timestamp("us", tz="UTC")
_ENTITY: Final = re.compile(r"(?:profiles|velocity)/([a-z][a-z0-9_]*)(?:/|$)")
_AGAIN: Final = "write the file again from its source; the step did not read any of it"


def entity_of(path: Path) -> str | None:
    """The entity, or the batch view, that a folder of profiles or velocity belongs to, by its name."""
    found = _ENTITY.search(path.resolve().as_posix() + "/")
    known = {*ENTITY_BY_NAME, *[view.folder for view in batch_views()]}
    return found.group(1) if found and found.group(1) in known else None


def expected_schema(gate: str, entity: str | None) -> dict[str, pa.DataType]:
    """Columns, and their types, that a batch of `gate` must have."""
    from stores.lake import LABEL_SCHEMA, LATER_COLUMNS, TRANSACTION_SCHEMA

    if gate == "raw":
        return {field.name: field.type for field in TRANSACTION_SCHEMA if field.name not in LATER_COLUMNS}
    if gate == "labels":
        return {field.name: field.type for field in LABEL_SCHEMA}
    times = {"event_timestamp": TIME}
    if gate == "profiles" and entity:
        view = batch_view_in(entity)
        names = [figure.name for figure in view.figures]
        return {
            view.key: pa.string(),
            **times,
            "created_timestamp": TIME,
            **dict.fromkeys(names, pa.float64()),
        }
    if gate == "velocity" and entity:
        chosen = ENTITY_BY_NAME[entity]
        return {
            chosen.key: pa.string(), **times, "created_timestamp": TIME, "transaction_timestamp": TIME,
            chosen.state_feature: pa.binary(),
        }  # fmt: skip
    if gate == "decisions":
        return {"transaction_id": pa.string(), **times, "decision": pa.string(), "score": pa.float64()}
    return {"transaction_id": pa.string(), **times}


def inspect(gate: str, path: Path, entity: str | None) -> tuple[list[Path], list[Failure]]:
    """The files of a batch, and what is wrong with them as files."""
    files = parquet_files(path) if path.exists() else []
    if not files:
        what = f"{path} holds no parquet file" if path.exists() else f"{path} does not exist"
        return [], [
            Failure(
                "no data", "block", what, None, None, (), "run the step that writes it, then this gate again"
            )
        ]
    wanted = expected_schema(gate, entity)
    failures = []
    for file in files:
        try:
            with pq.ParquetFile(file) as opened:
                schema = opened.schema_arrow
                if file.stat().st_size < _data_end(opened.metadata):
                    raise pa.ArrowInvalid("row groups reach past the end of the file")
        except (pa.ArrowInvalid, pa.ArrowException, OSError) as error:
            what = f"{file.name} in {file.parent.name} cannot be read: {str(error).splitlines()[0][:120]}"
            failures.append(Failure("truncated file", "block", what, None, None, (), _AGAIN))
            continue
        failures += _schema_failures(file, schema, wanted)
    return files, failures


def _data_end(metadata: pq.FileMetaData) -> int:
    """The byte after the last column chunk that the footer names."""
    end = 0
    for group in range(metadata.num_row_groups):
        for place in range(metadata.row_group(group).num_columns):
            column = metadata.row_group(group).column(place)
            start = column.dictionary_page_offset or column.data_page_offset
            end = max(end, start + column.total_compressed_size)
    return end


def _schema_failures(file: Path, schema: pa.Schema, wanted: dict[str, pa.DataType]) -> list[Failure]:
    absent = [name for name in wanted if name not in schema.names]
    failures = []
    if absent:
        what = f"{file.name} lacks {len(absent)} columns, first {absent[0]}"
        failures.append(Failure("wrong columns", "block", what, None, None, (), _AGAIN))
    for name, kind in wanted.items():
        if name in absent:
            continue
        found = schema.field(name).type
        if pa.types.is_timestamp(kind) and pa.types.is_timestamp(found) and found.tz != "UTC":
            zone = found.tz or "no time zone"
            what = f"{name} in {file.name} is in {zone}, not UTC"
            cure = "write times in UTC with their zone; a time without one cannot be placed"
            failures.append(Failure("wrong time zone", "block", what, None, None, (), cure))
        elif not _same_kind(found, kind):
            what = f"{name} in {file.name} is {found}, not {kind}"
            failures.append(Failure("wrong columns", "block", what, None, None, (), _AGAIN))
    return failures


def _same_kind(found: pa.DataType, wanted: pa.DataType) -> bool:
    """Whether two types hold the same values: widths and encodings of text and bytes may differ."""
    families: Sequence[tuple[pa.DataType, ...]] = (
        (pa.string(), pa.large_string()),
        (pa.binary(), pa.large_binary()),
    )
    if pa.types.is_dictionary(found):
        found = found.value_type
    if pa.types.is_timestamp(found) and pa.types.is_timestamp(wanted):
        return True
    return found == wanted or any(found in family and wanted in family for family in families)
