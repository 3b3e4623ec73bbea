"""A payment to try the running service with: `python -m embedded.example good|bad`.

Prints the body of a `POST /v1/score` for somebody whom the lake knows. `good` is what a regular
customer does every week: the usual terminal, the usual amount; each time another one of the most
regular. `bad` is the card of the last `good`, far away and at once: send it within some minutes.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from datetime import UTC, datetime, timedelta
from secrets import choice, token_hex

import msgspec

from fraud.contract.transaction import Transaction, encode_transaction
from stores.lake import TRANSACTIONS, parquet_history, read_labels, read_transactions, transactions_from_table
from stores.settings import settings

#: Days of the lake in which a regular is looked for.
_DAYS = 14
#: How many of them are taken in turn.
_REGULARS = 50
#: How far the bad payment is from the good one: nobody is there within an hour.
_DEGREES_AWAY = 60.0


class NoExampleError(LookupError):
    """The lake knows no regular customer; the text says what to do."""


def regulars(transactions: Iterable[Transaction], frauds: Collection[str]) -> dict[str, Transaction]:
    """The usual purchase at a counter of each of the customers with most of them, most first; none who has
    a transaction among `frauds` (ids). Raises `NoExampleError` without any."""
    rows = list(transactions)
    burnt = {row.customer_id for row in rows if row.transaction_id in frauds}
    kept = [
        row for row in rows
        if row.channel == "pos" and row.longitude is not None and row.customer_id not in burnt
    ]  # fmt: skip
    if not kept:
        raise NoExampleError("the lake knows no regular customer yet: run `make demo` or load a dataset")
    most = Counter(row.customer_id for row in kept).most_common(_REGULARS)
    return {customer: _usual([row for row in kept if row.customer_id == customer]) for customer, _ in most}


def _usual(mine: Sequence[Transaction]) -> Transaction:
    """The purchase of the middle amount at the terminal that is used most."""
    (terminal, _), *_ = Counter(row.terminal_id for row in mine).most_common(1)
    there = sorted((row for row in mine if row.terminal_id == terminal), key=lambda row: row.amount)
    return there[len(there) // 2]


def example(usual: Transaction, *, bad: bool, now: datetime) -> Transaction:
    """`usual` once more, now; if `bad`, in another part of the world."""
    kind = "bad" if bad else "good"
    again = msgspec.structs.replace(usual, transaction_id=f"example-{kind}-{token_hex(4)}", event_time=now)
    if not bad:
        return again
    longitude = ((usual.longitude or 0.0) + _DEGREES_AWAY + 180) % 360 - 180
    return msgspec.structs.replace(
        again, longitude=round(longitude, 4), merchant_id="example-far-away", terminal_id="example-far-away"
    )


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m embedded.example", description=__doc__)
    parser.add_argument("kind", choices=("good", "bad"), nargs="?", default="good")
    chosen = parser.parse_args(arguments)
    lake = settings().lake
    days = sorted(parquet_history(lake, TRANSACTIONS))
    try:
        if not days:
            raise NoExampleError("the lake is empty: run `make demo` or load a dataset")
        end = datetime(days[-1].year, days[-1].month, days[-1].day, tzinfo=UTC) + timedelta(days=1)
        labels = read_labels(lake, known_by=datetime.now(UTC))
        frauds = set(labels.filter(labels["is_fraud"])["transaction_id"].to_pylist())
        rows = read_transactions(lake, end - timedelta(days=_DAYS), end)
        known = regulars(transactions_from_table(rows), frauds)
    except NoExampleError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    bad = chosen.kind == "bad"
    last = settings().home / "example.txt"
    customer = last.read_text() if bad and last.exists() else choice(list(known))
    last.write_text(customer)
    usual = known.get(customer) or next(iter(known.values()))
    print(encode_transaction(example(usual, bad=bad, now=datetime.now(UTC))).decode())
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
