"""The rejects file: rows that broke the contract, why, and what of the row nobody need be ashamed of."""

from __future__ import annotations

import json
import re
from collections import Counter
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from datasets import columns
from datasets.mapping import Mapping
from datasets.sources import BadLine, SourceBatch
from datasets.validity import Findings
from fraud.contract.cards import redact

#: In place of what a mapping makes tokens of.
_HIDDEN: Final = "[made a token]"
_CARD: Final = "[card number]"
_LONGEST_EXAMPLE: Final = 40
#: `row_number` counts the data rows of `file` from 1; `row` is JSON of column to text.
REJECT_SCHEMA: Final = pa.schema(
    [
        ("file", pa.string()),
        ("row_number", pa.int64()),
        ("field", pa.string()),
        ("reason", pa.string()),
        ("row", pa.string()),
    ]
)


def shape(text: str) -> str:
    """`text` as what it looks like: digits as 9, letters as a. Nothing personal is left of it."""
    parts = redact(text).split(_CARD)
    return _CARD.join(re.sub(r"[^\W\d_]", "a", re.sub(r"\d", "9", part)) for part in parts)


class RejectsFile:
    """Appends rejected rows to a parquet file, a batch at a time, and keeps an example of each reason.

    A row is written without card numbers; of columns about a person (who, which card or device, where) and of
    those that `mapping` does not read, only the shape of what stands there is kept.
    """

    def __init__(self, path: Path, mapping: Mapping) -> None:
        self._writer = pq.ParquetWriter(path, REJECT_SCHEMA, compression="zstd")
        self._mapping = mapping
        self._shown, self._tokens = mapping.shown(), mapping.tokenized()
        self.reasons: Counter[tuple[str, str]] = Counter()
        self._examples: dict[tuple[str, str], tuple[int, str]] = {}

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

    def add(self, source: SourceBatch, batch: pa.RecordBatch, findings: Findings) -> None:
        """Write the broken rows of `batch`, which is `source`'s with what was joined to it."""
        broken = np.flatnonzero(findings.broken)
        if not broken.size:
            return
        self.reasons.update(findings.counts())
        rows = batch.take(pa.array(broken))
        texts = {name: columns.readable(rows.column(name)) for name in dict.fromkeys(rows.schema.names)}
        shown = {redact(name): self._shown_values(name, values) for name, values in texts.items()}
        originals = [
            json.dumps(dict(zip(shown, values, strict=True)), ensure_ascii=False)
            for values in zip(*shown.values(), strict=True)
        ]
        found = [findings.at(row) for row in broken.tolist()]
        numbers = source.rows[broken]
        for place, reason in enumerate(found):
            if reason not in self._examples:
                self._examples[reason] = int(numbers[place]), self._example(reason[0], texts, place)
        fields, reasons = zip(*found, strict=True)
        self._write([[source.file] * len(broken), numbers, list(fields), list(reasons), originals])

    def add_lines(self, file: str, lines: list[BadLine]) -> None:
        """Write lines that could not be split into columns, as their shape."""
        if not lines:
            return
        for line in lines:
            self.reasons["(row)", line.reason] += 1
            self._examples.setdefault(("(row)", line.reason), (line.row, shape(line.text)[:_LONGEST_EXAMPLE]))
        originals = [json.dumps({"(line)": shape(line.text)}, ensure_ascii=False) for line in lines]
        rows = [line.row for line in lines]
        reasons = [line.reason for line in lines]
        self._write([[file] * len(lines), rows, ["(row)"] * len(lines), reasons, originals])

    def report(self) -> list[dict[str, Any]]:
        """Reasons with their rows, most first, each with the number of one such row and how it is written."""
        found = []
        for (field, reason), rows in self.reasons.most_common():
            row, example = self._examples.get((field, reason), (0, ""))
            found.append({"field": field, "reason": reason, "rows": rows, "row": row, "example": example})
        return found

    def lines(self, most: int) -> list[str]:
        """The first `most` reasons, for people."""
        return [
            f"  {each['rows']:,}: {each['field']}: {each['reason']} "
            f"(row {each['row']}, written like {each['example']!r})"
            for each in self.report()[:most]
        ]

    def _shown_values(self, name: str, values: list[str | None]) -> list[str | None]:
        if name in self._tokens:
            return [_HIDDEN] * len(values)
        show = redact if name in self._shown else shape
        return [None if value is None else show(value) for value in values]

    def _example(self, field: str, texts: dict[str, list[str | None]], place: int) -> str:
        label = self._mapping.label
        source = self._mapping.fields.get(field)
        names = (
            (label.column,) if label is not None and field == "label" else source.columns if source else ()
        )
        values = [texts[name][place] for name in names if name in texts]
        return ", ".join("nothing" if value is None else shape(value) for value in values)[:_LONGEST_EXAMPLE]

    def _write(self, values: list[object]) -> None:
        arrays = [pa.array(value, field.type) for value, field in zip(values, REJECT_SCHEMA, strict=True)]
        self._writer.write_table(pa.table(arrays, schema=REJECT_SCHEMA))
