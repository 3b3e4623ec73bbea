"""Facts about a whole batch, and how they compare with earlier batches that passed.

Both engines summarise a batch into the same small `Summary`; everything after that is one code.
The history keeps the summaries of the last passed runs of a gate and subject.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from fraud.contract.cards import SUSPECT, looks_like_card_number
from fraud.contract.transaction import searched_fields
from stores.files import write_whole

if TYPE_CHECKING:
    from pyspark.sql import DataFrame as SparkFrame

OPTIONAL: Final = ("terminal_id", "device_id", "ip", "merchant_category", "country", "latitude")
_TEXT: Final = ("transaction_id", "customer_id", "card_id", "merchant_id", "terminal_id", "device_id", "ip")
_HOUR_US: Final = 3_600_000_000
#: An hour is expected to hold rows when at least this many are usual in it.
FEWEST_AN_HOUR: Final = 20.0
#: Currencies with fewer rows are not compared.
FEWEST_AMOUNTS: Final = 100
#: By how much another offset must fit the usual hours better before the clock counts as shifted.
BETTER_FIT: Final = 0.1
#: Card numbers in one column: digits in at most this many suspicious values are looked at.
MOST_SUSPECTS: Final = 50_000
KEPT_RUNS: Final = 30


@dataclass(slots=True)
class Summary:
    """A batch in a few numbers: rows by hour since 1970, median amount by currency, shares missing."""

    rows: int
    hours: dict[int, int] = field(default_factory=dict)
    amounts: dict[str, float] = field(default_factory=dict)
    missing: dict[str, float] = field(default_factory=dict)
    card_numbers: int = 0
    cuts: int = 1

    @property
    def days(self) -> float:
        """Days between the first and the last hour that hold rows, at least one hour."""
        return (max(self.hours) - min(self.hours) + 1) / 24 if self.hours else 1.0

    def by_hour_of_day(self) -> list[float]:
        """Mean rows in each hour of the day, UTC."""
        total = [0.0] * 24
        for hour, count in self.hours.items():
            total[hour % 24] += count
        return [count / max(self.days, 1.0) for count in total]


def summarise(gate: str, table: pa.Table, entity: str | None = None) -> Summary:
    """The summary of an Arrow table."""
    names = set(table.column_names)
    summary = Summary(rows=len(table))
    if "event_timestamp" in names and gate in ("raw", "decisions"):
        hours = pc.divide(
            table["event_timestamp"].cast(pa.timestamp("us", tz="UTC")).cast(pa.int64()), _HOUR_US
        )
        counts = pc.value_counts(hours.combine_chunks() if isinstance(hours, pa.ChunkedArray) else hours)
        pairs = zip(counts.field(0).to_pylist(), counts.field(1).to_pylist(), strict=True)
        summary.hours = {int(hour): int(count) for hour, count in pairs if hour is not None}
    if gate in ("raw", "decisions"):
        summary.card_numbers = sum(_card_numbers(table[name]) for name in _searched() if name in names)
    if gate == "raw":
        grouped = table.select(["currency", "amount_minor"]).group_by("currency").aggregate(
            [("amount_minor", "approximate_median"), ("amount_minor", "count")]
        )  # fmt: skip
        for row in grouped.to_pylist():
            if row["currency"] and row["amount_minor_count"] >= FEWEST_AMOUNTS:
                summary.amounts[row["currency"]] = float(row["amount_minor_approximate_median"])
        summary.missing = {
            name: table[name].null_count / max(len(table), 1) for name in OPTIONAL if name in names
        }
    if gate == "profiles":
        summary.cuts = len(pc.unique(table["event_timestamp"]))
        middle = f"{entity}_amount_mean_30d"
        if middle in names and len(table) - table[middle].null_count >= FEWEST_AMOUNTS:
            summary.amounts["all"] = float(pc.approximate_median(table[middle]).as_py())
    return summary


def summarise_spark(gate: str, frame: SparkFrame, entity: str | None = None) -> Summary:
    """The summary of a Spark frame, by three small aggregations."""
    from pyspark.sql import functions as f

    summary = Summary(rows=frame.count())
    if gate == "raw":
        hour = f.floor(f.unix_micros("event_timestamp") / _HOUR_US).alias("hour")
        summary.hours = {
            int(row["hour"]): int(row["count"])
            for row in frame.groupBy(hour).count().collect()
            if row["hour"] is not None
        }
        grouped = frame.groupBy("currency").agg(
            f.count("amount_minor").alias("n"), f.percentile_approx("amount_minor", 0.5).alias("m")
        )
        summary.amounts = {
            row["currency"]: float(row["m"])
            for row in grouped.collect()
            if row["currency"] and row["n"] >= FEWEST_AMOUNTS
        }
        nulls = frame.agg(
            *[f.avg(f.col(name).isNull().cast("double")).alias(name) for name in OPTIONAL]
        ).first()
        summary.missing = {name: float(nulls[name] or 0.0) for name in OPTIONAL} if nulls else {}
        for name in _searched():
            suspects = frame.select(name).where(f.col(name).rlike(SUSPECT)).limit(MOST_SUSPECTS).collect()
            summary.card_numbers += sum(looks_like_card_number(row[0]) for row in suspects)
    if gate == "profiles":
        summary.cuts = frame.select("event_timestamp").distinct().count()
        middle = f"{entity}_amount_mean_30d"
        row = (
            frame.agg(f.count(middle).alias("n"), f.percentile_approx(middle, 0.5).alias("m")).first()
            if middle in frame.columns
            else None
        )
        if row is not None and row["n"] >= FEWEST_AMOUNTS:
            summary.amounts["all"] = float(row["m"])
    return summary


def _searched() -> list[str]:
    declared = searched_fields()
    return [name for name in _TEXT if name in declared]


def _card_numbers(column: pa.ChunkedArray) -> int:
    suspects = pc.filter(column, pc.match_substring_regex(column, SUSPECT))
    return sum(looks_like_card_number(value) for value in suspects.slice(0, MOST_SUSPECTS).to_pylist())


def facts(summary: Summary, history: Sequence[Summary]) -> dict[str, float | None]:
    """The facts that the suites check; None where nothing earlier says what is usual."""
    usual_rows = median(past.rows / past.days for past in history) if history else None
    ratio = summary.rows / summary.days / usual_rows if usual_rows else None
    changes = [
        abs(share - median(past.missing.get(name, share) for past in history))
        for name, share in summary.missing.items()
        if history
    ]
    return {
        "rows": float(summary.rows),
        "rows_ratio": ratio,
        "missing_hours": float(len(missing_hours(summary, history))),
        "hour_shift": float(hour_shift(summary, history)),
        "amount_ratio": amount_ratio(summary, history),
        "card_numbers": float(summary.card_numbers),
        "optional_missing_change": max(changes, default=None),
        "cuts": float(summary.cuts),
    }


def usual_hours(history: Sequence[Summary]) -> list[float] | None:
    """Usual rows in each hour of the day, from earlier batches that cover a day or more."""
    whole = [past.by_hour_of_day() for past in history if past.days >= 0.99]
    return [median(day[hour] for day in whole) for hour in range(24)] if whole else None


def missing_hours(summary: Summary, history: Sequence[Summary]) -> list[int]:
    """Hours since 1970 without a row, between the batch's first and last, that usually hold some.

    Without history a batch of two days or more is its own measure. A batch that covers most of a
    day is held against that whole day, so that a missing end is found too.
    """
    if not summary.hours:
        return []
    usual = usual_hours(history) or (summary.by_hour_of_day() if summary.days >= 2 else None)
    if usual is None:
        return []
    first, last = min(summary.hours), max(summary.hours)
    if usual_hours(history) is not None and summary.days >= 0.5:
        first, last = first // 24 * 24, last // 24 * 24 + 23
    return [
        hour
        for hour in range(first, last + 1)
        if hour not in summary.hours and usual[hour % 24] >= FEWEST_AN_HOUR
    ]


def hour_shift(summary: Summary, history: Sequence[Summary]) -> int:
    """By how many hours the batch's daily rhythm is displaced from the usual one, or 0.

    The offset whose profile correlates best with the usual one, if it does so clearly better.
    """
    usual = usual_hours(history)
    if usual is None or summary.days < 0.99:
        return 0
    now, then = np.array(summary.by_hour_of_day()), np.array(usual)
    if now.std() == 0 or then.std() == 0:
        return 0
    fits = [float(np.corrcoef(now, np.roll(then, shift))[0, 1]) for shift in range(24)]
    best = int(np.argmax(fits))
    if best == 0 or fits[best] < fits[0] + BETTER_FIT or fits[best] < 0.8:
        return 0
    return best if best <= 12 else best - 24


def amount_ratio(summary: Summary, history: Sequence[Summary]) -> float | None:
    """The largest factor, up or down, by which a currency's median amount left its usual value."""
    factors = []
    for currency, value in summary.amounts.items():
        past = [entry.amounts[currency] for entry in history if currency in entry.amounts]
        usual = median(past) if past else 0.0
        if usual > 0 and value > 0:
            factors.append(max(value / usual, usual / value))
    return max(factors, default=None)


class History:
    """Summaries of passed runs, kept as one JSON file."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def past(self, key: str) -> list[Summary]:
        """Earlier summaries of `key`, the oldest first."""
        return [_summary(entry) for entry in self._all().get(key, [])]

    def add(self, key: str, summary: Summary) -> None:
        """Keep `summary` as the newest of `key`, in place of an equal one."""
        content = self._all()
        entries = [entry for entry in content.get(key, []) if _summary(entry) != summary]
        content[key] = [*entries, asdict(summary)][-KEPT_RUNS:]
        write_whole(self._path, json.dumps(content))

    def _all(self) -> dict[str, list[Mapping[str, Any]]]:
        return dict(json.loads(self._path.read_text())) if self._path.exists() else {}


def _summary(entry: Mapping[str, Any]) -> Summary:
    hours = {int(hour): int(count) for hour, count in entry["hours"].items()}
    return Summary(**{**entry, "hours": hours})
