"""A second file whose columns are lent to each row by a key: `source: join`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pyarrow as pa
import pyarrow.compute as pc

from datasets import columns
from datasets.fields import MappingError
from datasets.mapping import Mapping
from datasets.sources import column_names, read_batches, source_files

#: The second file is held in memory.
_MOST_ROWS: Final = 20_000_000


@dataclass(frozen=True, slots=True)
class Join:
    """The second file: its keys as text, the columns that it lends, and what the data call the key."""

    path: Path
    key: str
    keys: pa.Array
    lent: pa.Table

    def needed_of_data(self, needed: set[str]) -> set[str]:
        """The columns that the data itself should have."""
        return (needed - set(self.lent.column_names)) | {self.key}

    def joined(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """`batch` with the columns of the second file, null where it has no row of that key."""
        place = pc.index_in(columns.tidy(columns.text(batch.column(self.key))), value_set=self.keys)
        for name in self.lent.column_names:
            batch = batch.append_column(name, self.lent.column(name).combine_chunks().take(place))
        return batch


def open_join(data: Path, mapping: Mapping) -> Join | None:
    """The second file of `mapping`, which lies beside the data; None if it names none.

    Raises MappingError when it is not there, has a key twice, or has no more rows than can be held.
    """
    spec = mapping.source.join
    if spec is None:
        return None
    path = (data if data.is_dir() else data.parent) / spec.file
    if not path.is_file():
        raise MappingError(f"{path.name}, which the mapping joins by {spec.key}, should lie beside the data")
    files = [file for file in source_files(data) if file != path]
    own = set(column_names(files[0], mapping.source, data)) if files else set()
    there = spec.key_there or spec.key
    names = set(column_names(path, mapping.source))
    wanted = sorted((mapping.columns() & names) - own - {there})
    batches = [
        source.batch.select([there, *wanted])
        for source in read_batches(path, mapping.source, {there, *wanted})
    ]
    table = pa.Table.from_batches(batches).combine_chunks() if batches else None
    if table is None or table.num_rows == 0:
        raise MappingError(f"{path.name}, which the mapping joins, has no rows")
    if table.num_rows > _MOST_ROWS:
        raise MappingError(f"{path.name} has more than {_MOST_ROWS:,} rows; join it before the import")
    keys = columns.tidy(columns.text(table.column(there).combine_chunks()))
    twice = len(keys) - pc.count_distinct(keys, mode="all").as_py()
    if twice:
        raise MappingError(
            f"{path.name} repeats {twice:,} of its keys in {there}: which row should be joined?"
        )
    return Join(path, spec.key, keys, table.select(wanted))
