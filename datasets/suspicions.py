"""What looks odd in rows that were read: said before an import (`datasets.suggest`)."""

from __future__ import annotations

from typing import Final

import pyarrow as pa
import pyarrow.compute as pc

from datasets import columns
from datasets.mapping import Mapping

_SHARED: Final = 0.01
_GIANT: Final = 0.3
_FEWEST: Final = 20


def shared_times(rows: pa.Table) -> float:
    """The share of rows whose customer has another one at the same time."""
    if not rows.num_rows:
        return 0.0
    together = rows.group_by(["customer_id", "event_timestamp"]).aggregate([([], "count_all")])
    counts = together.column("count_all").to_numpy()
    return float(counts[counts > 1].sum() / rows.num_rows)


def giant(column: pa.ChunkedArray) -> float:
    """The share of the most frequent value of a column, of those that there are."""
    present = column.drop_null()
    if len(present) < _FEWEST:
        return 0.0
    return float(max(entry["counts"] for entry in pc.value_counts(present).to_pylist()) / len(column))


def suspicions(rows: pa.Table, batch: pa.RecordBatch, mapping: Mapping) -> list[str]:
    """Of `rows` that an import would take of `batch`: shared times, giants, 0, 0, refunds, zero amounts."""
    found = []
    share = shared_times(rows)
    if share >= _SHARED:
        found.append(
            f"{share:.0%} of rows share their time with another of the same customer: windows are blind"
        )
    for name in ("customer_id", "card_id", "merchant_id", "device_id", "ip"):
        source = mapping.fields.get(name)
        if source is not None and source.constant is None and giant(rows.column(name)) >= _GIANT:
            share = giant(rows.column(name))
            found.append(f"one {name} stands in {share:.0%} of rows: everybody's id, or a word for nothing?")
    if rows.num_rows >= _FEWEST and pc.count_distinct(rows.column("transaction_id")).as_py() < rows.num_rows:
        found.append("transaction ids repeat: an import takes the first of each; row: true numbers the rows")
    nowhere = _nowhere(batch, mapping)
    if nowhere:
        found.append(
            f"{nowhere:,} rows are at exactly 0, 0: devices that do not know where they are; no place is kept"
        )
    negative = _signs(batch, mapping)
    if negative:
        found.append(
            f"{negative:,} amounts are negative: refunds, or a sign that says who pays? (amount: negative)"
        )
    zero = pc.sum(pc.equal(rows.column("amount_minor"), 0)).as_py() or 0
    if zero:
        found.append(f"{zero:,} amounts are 0, as verifications of a card are (amount: zero: leave_out)")
    return found


def _nowhere(batch: pa.RecordBatch, mapping: Mapping) -> int:
    places = [mapping.fields.get(name) for name in ("latitude", "longitude")]
    if any(place is None or place.column is None for place in places):
        return 0
    values = [columns.degrees(columns.values(batch, place))[0] for place in places if place is not None]
    both = pc.and_(pc.equal(values[0], 0.0), pc.equal(values[1], 0.0))
    return int(pc.sum(both).as_py() or 0)


def _signs(batch: pa.RecordBatch, mapping: Mapping) -> int:
    column = mapping.fields["amount"].column
    if column is None:
        return 0
    written = columns.text(batch.column(column))
    return int(columns.matches(written, r"^\s*[^\d]?\s*[-(\x{2212}]|-\s*$").sum())
