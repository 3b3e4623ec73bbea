"""What a standard entity's packed state is read for, at the time of every transaction, as declarations.

A state remembers the events of 26 hours, and the last uses of the entity's counterparties (24 hours) and
habits (30 days): `fraud.features.entities`. Windows are up to 24 hours; what needs longer ones, other columns
or filters is a stream view of its own (`feature_repo.declare.stream_view`).
"""

from __future__ import annotations

from typing import Final

from feature_repo.words import Word, each, figure

WINDOWS: Final = "1m 5m 30m 1h 24h"
LONGER: Final = "1h 24h"


def _velocity(of: str, *others: str, habits: tuple[str, ...] = (), located: bool = False) -> list[Word]:
    found = [
        *each(WINDOWS, f"{of}_txn_count_{{w}}", "count",
              meaning=f"transactions of the {of} in the last {{w}}"),
        *each(WINDOWS, f"{of}_amount_sum_{{w}}", "sum", "amount",
              meaning="sum of its amounts in the last {w}"),
        *each(LONGER, f"{of}_amount_mean_{{w}}", "mean", "amount",
              meaning="mean of its amounts in the last {w}"),
        *each(LONGER, f"{of}_amount_std_{{w}}", "std", "amount",
              meaning="standard deviation of its amounts in the last {w}"),
    ]  # fmt: skip
    for other in others:
        found += each(
            LONGER, f"{of}_distinct_{other}s_{{w}}", "count_distinct", f"{other}_id",
            meaning=f"different {other}s in the last {{w}}",
        )  # fmt: skip
    found += [
        figure(f"{of}_seconds_since_last_txn", "seconds_since_last",
               meaning=f"seconds since the {of}'s last transaction"),
        figure(f"{of}_seconds_since_first_txn", "seconds_since_first", over="30d",
               meaning=f"seconds since the {of}'s first known transaction, at most 30 days"),
        figure(f"{of}_amount_zscore_{{w}}", "zscore", "amount", over="24h",
               meaning="deviations of this amount from its mean of the last {w}"),
    ]  # fmt: skip
    found += [
        figure(f"{of}_new_{other}_{{w}}", "new", f"{other}_id", over="24h",
               meaning=f"1 if it had nothing to do with this {other} in the last {{w}}")
        for other in others
    ]  # fmt: skip
    found += [
        figure(f"{of}_new_{habit}", "new", _FIELDS.get(habit, f"{habit}_id"), over="30d",
               meaning=f"1 if it did not use this {habit} in the last 30 days")
        for habit in habits
    ]  # fmt: skip
    if located:
        found += [
            figure(f"{of}_km_from_last", "distance", "latitude", "longitude",
                   meaning=f"kilometres from the {of}'s last location"),
            figure(f"{of}_speed_kmh", "speed", "latitude", "longitude",
                   meaning="speed needed to come here from there"),
        ]  # fmt: skip
    return found


_FIELDS: Final = {"country": "country"}

#: By entity.
VELOCITIES: Final[dict[str, list[Word]]] = {
    "customer": _velocity("customer", "merchant", habits=("device", "country"), located=True),
    "card": _velocity("card", "merchant", habits=("device", "country"), located=True),
    "merchant": _velocity("merchant", "card"),
    "terminal": _velocity("terminal", "card"),
    "device": _velocity("device", "card", "customer"),
    "ip": _velocity("ip", "card", "customer"),
}
