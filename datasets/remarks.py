"""What somebody should know of an imported dataset: rejects by reason, shared times, giants, lonely years."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import pyarrow.compute as pc

from datasets.folder import read_dataset_transactions, read_info
from datasets.span import main_span
from datasets.suspicions import giant, shared_times

#: From which shares on an import says that rows share their times, and that an id is a giant.
_SHARED: Final = 0.01
_GIANT: Final = 0.3
_FEWEST_TO_JUDGE: Final = 100
_NAMED: Final = 3


def remarks(out: Path) -> list[str]:
    """Of the dataset in `out`: what was refused and left out, and what its rows look like."""
    source = read_info(out).source
    found = [
        f"rejected {reason['rows']:,}: {reason['field']}: {reason['reason']}{_example(reason)}"
        for reason in source.get("rejected", [])[:10]
    ]
    found += [f"left out {rows:,}: {reason}" for reason, rows in source.get("left_out", {}).items()]
    rows = read_dataset_transactions(out).select(
        ["transaction_id", "customer_id", "device_id", "ip", "event_timestamp", "amount_minor"]
    )
    if not rows.num_rows:
        return found
    share = shared_times(rows)
    if share >= _SHARED:
        found.append(
            f"{share:.0%} of rows share their time with another of the same customer: windows are blind"
        )
    for name in ("customer_id", "device_id", "ip"):
        share = giant(rows.column(name))
        if share >= _GIANT and rows.num_rows >= _FEWEST_TO_JUDGE:
            found.append(f"one {name} stands in {share:.0%} of rows: a word for nothing?")
    zero = pc.sum(pc.equal(rows.column("amount_minor"), 0)).as_py()
    if zero:
        found.append(
            f"{zero:,} rows have the amount 0, as verifications of a card have: amount: zero: leave_out"
        )
    span = main_span(out)
    if span is not None and span.strays:
        times = rows.column("event_timestamp")
        lonely = rows.filter(pc.or_(pc.less(times, span.start), pc.greater(times, span.end)))
        named = ", ".join(
            f"{name} of {when:%Y-%m-%d}"
            for name, when in zip(
                lonely.column("transaction_id")[:_NAMED].to_pylist(),
                lonely.column("event_timestamp")[:_NAMED].to_pylist(),
                strict=True,
            )
        )
        found.append(
            f"{span.strays:,} of {rows.num_rows:,} rows lie far from the rest, which spans "
            f"{span.start:%Y-%m-%d} to {span.end:%Y-%m-%d}, and stretch the span of the data: {named}"
        )
    return found


def _example(reason: dict[str, object]) -> str:
    shape = reason.get("example")
    return f" (row {reason['row']}, written like {shape})" if shape else f" (row {reason['row']})"
