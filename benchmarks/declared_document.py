"""Writes docs/feature-prices.md from results/bench/declared.json.

python -m benchmarks.declared_document
"""

from __future__ import annotations

import json
from typing import Any, Final

from benchmarks.serving_document import table
from stores.settings import REPOSITORY, settings

PAGE: Final = REPOSITORY / "docs" / "feature-prices.md"
_SPANS: Final = ((86_400, "d"), (3_600, "h"), (60, "min"))


def _window(seconds: int) -> str:
    """A window in its largest whole unit."""
    for size, unit in _SPANS:
        if seconds % size == 0 and seconds >= size:
            return f"{seconds // size} {unit}"
    return f"{seconds} s"


def page(report: dict[str, Any]) -> str:
    """The page of prices and bounds that `benchmarks.declared` measured."""
    prices = table(
        ("function", "window", "events a day", "bytes a state", "at most", "us to add", "us to read",
         "s to replay a million"),
        [
            (f"`{each['function']}`", _window(each["window_s"]), f"{each['events_a_day']:,}",
             f"{each['state_bytes']:,}", f"{each['most_bytes']:,}", each["add_us"], each["read_us"],
             each["backfill_s_per_million"])
            for each in report["prices"]
        ],
    )  # fmt: skip
    worst: dict[tuple[str, int], tuple[float, float]] = {}
    for each in report["accuracy"]:
        key = (each["function"], each["events"])
        error, _ = worst.get(key, (0.0, 0.0))
        worst[key] = max(error, each["worst_error"]), each["bound"]
    bounds = table(
        ("function", "events", "worst error of any window", "stated bound"),
        [
            (f"`{function}`", f"{events:,}", f"{error:.2%}", f"{bound:.0%}" if bound else "exact")
            for (function, events), (error, bound) in worst.items()
        ],
    )
    stream = report["stream"]
    bursts = " and ".join(f"{events:,}" for events in sorted({each["events"] for each in report["accuracy"]}))
    return f"""# What a feature costs

Written by `make bench-declared`; each price is that of a view with one aggregate. Several aggregates over the
same columns share a state, so a further one mostly costs its reading alone. `tollgate plan` prices your own
views here. Bytes are what the stream holds, Redis stores and each row of the velocity log has, for each value
of the entity. A rebuild replays each event once: its seconds are those of one processor, without Spark's own.

{prices}

**Forty further features** over three attributes, one new entity, two filters, long windows and a table: the
stream's own work per event takes {stream["us_per_event_with"]} us of processor time instead of
{stream["us_per_event"]}, so it processes {stream["stream_ratio"]:.2f} of the events (the target is
{stream["target"]}).

# How exact it is

Bursts of {bursts} events within three days, with as many different counterparties, read over windows from a
minute to thirty days up to five days later, against DuckDB over all events. `new` says null where it cannot
know.

{bounds}
{_many(report.get("distinct"))}"""


def _many(many: dict[str, Any] | None) -> str:
    """How well many different values were counted, nothing where that was not measured."""
    if many is None:
        return ""
    return f"""
**Many different values.** {many["entities"]:,} entities with up to {many["counterparties"][-1]:,} different
counterparties: half of the counts are within {many["median_error"]:.1%}, the worst is off by
{many["worst_error"]:.1%} (stated: {many["median_bound"]:.0%} and {many["bound"]:.0%}). The state of one with
{many["state_of"]:,} has {many["state_bytes"]:,} bytes and is off by {many["state_error"]:.1%}.
"""


def main() -> int:
    """Write the page."""
    report = json.loads((settings().results / "bench" / "declared.json").read_text())
    PAGE.write_text(page(report), encoding="utf-8")
    print(f"wrote {PAGE.relative_to(REPOSITORY)}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
