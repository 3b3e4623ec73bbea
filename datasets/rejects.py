"""The rejects file: rows that broke the contract, why, and the row itself without card numbers."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Collection
from pathlib import Path
from types import TracebackType
from typing import Final, Self

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from datasets import columns
from datasets.sources import BadLine, SourceBatch
from datasets.validity import Findings
from fraud.contract.cards import redact

#: `row_number` counts the data rows of `file` from 1; `row` is JSON of column to text.
#: In place of what a mapping makes tokens of.
_HIDDEN: Final = "[made a token]"
REJECT_SCHEMA: Final = pa.schema(
    [
        ("file", pa.string()),
        ("row_number", pa.int64()),
        ("field", pa.string()),
        ("reason", pa.string()),
        ("row", pa.string()),
    ]
)


class RejectsFile:
    """Appends rejected rows to a parquet file, a batch at a time."""

    def __init__(self, path: Path) -> None:
        self._writer = pq.ParquetWriter(path, REJECT_SCHEMA, compression="zstd")
        self.reasons: Counter[tuple[str, str]] = Counter()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._writer.close()

    @property
    def count(self) -> int:
        """How many rows were rejected so far."""
        return self.reasons.total()

    def add(self, source: SourceBatch, findings: Findings, hidden: Collection[str] = ()) -> None:
        """Write the broken rows of `source`, without what stands in the columns `hidden`."""
        broken = np.flatnonzero(findings.broken)
        if not broken.size:
            return
        self.reasons.update(findings.counts())
        rows = source.batch.take(pa.array(broken))
        names = [redact(name) for name in rows.schema.names]
        texts = [
            [_HIDDEN] * len(broken) if name in hidden else columns.readable(column)
            for name, column in zip(rows.schema.names, rows.columns, strict=True)
        ]
        originals = [
            json.dumps(dict(zip(names, map(_redacted, values), strict=True)), ensure_ascii=False)
            for values in zip(*texts, strict=True)
        ]
        fields, reasons = zip(*(findings.at(row) for row in broken.tolist()), strict=True)
        numbers = source.rows[broken]
        columns_ = [[source.file] * len(broken), numbers, list(fields), list(reasons), originals]
        self._write(columns_)

    def add_lines(self, file: str, lines: list[BadLine]) -> None:
        """Write lines that could not be split into columns."""
        if not lines:
            return
        self.reasons.update(("(row)", line.reason) for line in lines)
        originals = [json.dumps({"(line)": redact(line.text)}, ensure_ascii=False) for line in lines]
        rows = [line.row for line in lines]
        reasons = [line.reason for line in lines]
        self._write([[file] * len(lines), rows, ["(row)"] * len(lines), reasons, originals])

    def _write(self, values: list[object]) -> None:
        arrays = [pa.array(value, field.type) for value, field in zip(values, REJECT_SCHEMA, strict=True)]
        self._writer.write_table(pa.table(arrays, schema=REJECT_SCHEMA))


def _redacted(value: str | None) -> str | None:
    return None if value is None else redact(value)
