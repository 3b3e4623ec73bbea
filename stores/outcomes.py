"""What became of payments: the kinds of outcome, what of a payment counts as spent, and their files.

`lake/outcomes/date=YYYY-MM-DD/` holds outcomes by the date of their transaction's event, so that all of one
transaction lie in one folder. Each row says what counted as spent before and after it: whoever reads rows
in the order in which they became known has to know no rule.

What is spent follows from the set of outcomes that are known, in whatever order they came:

* declined, or reversed as a whole: nothing;
* captured: what was captured, less what was refunded;
* else: what was authorised and added to it, less what was reversed and refunded.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import date
from pathlib import Path
from typing import Final, Literal, get_args

import pyarrow as pa
import pyarrow.parquet as pq
from msgspec import Struct

from stores.lake_files import files_of_date

Kind = Literal["declined", "reversed", "refunded", "captured", "incremental", "disputed", "dispute_won"]
KINDS: Final[tuple[str, ...]] = get_args(Kind)
#: Kinds that may be of a part: without an amount they are of the whole.
PARTIAL: Final = frozenset({"reversed", "refunded", "captured", "disputed", "dispute_won"})
OUTCOMES: Final = "outcomes"

_TIME: Final = pa.timestamp("us", tz="UTC")
#: An outcome in the lake. `event_timestamp` is its transaction's event time, `created_timestamp` when states
#: learnt of it, `reported_timestamp` when its sender did. `amount_minor` is the outcome's own, null for the
#: whole; `spent_before` and `spent_after` are reference cents of the transaction. `outcome_id` tells
#: outcomes of one kind and transaction apart; `client` sent it. The ids are the transaction's.
OUTCOME_SCHEMA: Final = pa.schema(
    [
        ("transaction_id", pa.string()),
        ("outcome_id", pa.string()),
        ("kind", pa.string()),
        ("event_timestamp", _TIME),
        ("created_timestamp", _TIME),
        ("reported_timestamp", _TIME),
        ("customer_id", pa.string()),
        ("card_id", pa.string()),
        ("merchant_id", pa.string()),
        ("terminal_id", pa.string()),
        ("device_id", pa.string()),
        ("ip", pa.string()),
        ("currency", pa.string()),
        ("amount_minor", pa.int64()),
        ("reason", pa.string()),
        ("client", pa.string()),
        ("spent_before", pa.int64()),
        ("spent_after", pa.int64()),
    ]
)


class Effect(Struct, frozen=True):
    """What one outcome does to its payment: minor units, None for the whole."""

    kind: str
    amount_minor: int | None = None


def spent_minor(authorised: int, effects: Iterable[Effect]) -> int:
    """What of a payment of `authorised` minor units counts as spent, whatever the order of `effects`."""
    added = returned = captured = refunded = 0
    any_captured = whole_refunded = False
    for effect in effects:
        amount = effect.amount_minor
        if effect.kind == "declined" or (effect.kind == "reversed" and amount is None):
            return 0
        if effect.kind == "incremental":
            added += amount or 0
        elif effect.kind == "reversed":
            returned += amount or 0
        elif effect.kind == "captured":
            any_captured = True
            captured += authorised if amount is None else amount
        elif effect.kind == "refunded":
            whole_refunded |= amount is None
            refunded += amount or 0
    if whole_refunded:
        return 0
    taken = captured if any_captured else authorised + added - returned
    return max(0, taken - refunded)


def outcomes_on(root: Path, day: date) -> pa.Table:
    """The outcomes of transactions of `day` (UTC, by event time)."""
    folder = root / OUTCOMES / f"date={day:%Y-%m-%d}"
    files = files_of_date(folder) if folder.is_dir() else []
    tables = [pq.ParquetFile(path).read() for path in files]
    return pa.concat_tables(tables).cast(OUTCOME_SCHEMA) if tables else OUTCOME_SCHEMA.empty_table()
