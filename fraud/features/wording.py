"""How features read as reasons for a decision: a phrase for each figure, by what it computes.

So a declared window or column has its words as it has its values (`fraud.features.phrases`).
"""

from __future__ import annotations

from typing import Final

from fraud.declared.figures import Figure
from fraud.features.entities import TRACKED_FIELDS
from fraud.features.phrases import (
    CALLED,
    WHERE,
    Phrase,
    channel,
    clock,
    compared,
    count,
    duration,
    first_of,
    fraud_code,
    is_one,
    money,
    positive,
    share,
    times,
    usual_rate,
    weekday,
)
from fraud.features.plan import STANDARD

_DAY_MS: Final = 86_400_000
_NAMES: Final = {field: name for name, field in TRACKED_FIELDS.items()}
_BATCH: Final = {each.name: each for view in STANDARD.batches for each in view.figures}
_STATES: Final = {each.name: each for view in STANDARD.velocities for each in view.figures}
_ALONE: Final = {
    "amount": Phrase("amount of {}", "A1", money),
    "channel": Phrase("{}", "C1", channel),
    "merchant_category": Phrase("kind of merchant", "C1"),
    "country": Phrase("country of the purchase", "L1"),
    "currency": Phrase("currency of the purchase", "C1"),
    "device_id": Phrase("made from a device", "C1", told=is_one),
    "ip": Phrase("made from an internet address", "C1", told=is_one),
    "terminal_id": Phrase("made at a terminal", "C1", told=is_one),
}
_TIMES: Final = {
    "hour": Phrase("at {} UTC", "T1", clock),
    "weekday": Phrase("on a {}", "T1", weekday),
    "night": Phrase("between midnight and 6 o'clock UTC", "T1", told=is_one),
    "weekend": Phrase("on a weekend", "T1", told=is_one),
}


def window_words(milliseconds: int) -> str:
    """A length as a person says it: `5 minutes`, `24 hours`, `7 days`."""
    for name, length, least in (("day", _DAY_MS, 2), ("hour", 3_600_000, 1), ("minute", 60_000, 1)):
        number, rest = divmod(milliseconds, length)
        if not rest and number >= least:
            return f"{number} {name}{'s' if number > 1 else ''}"
    return f"{milliseconds // 1000} seconds"


def of_batch(entity: str, figure: Figure) -> Phrase | None:
    """The phrase of a batch feature; None for what is never a reason."""
    where, fraud = WHERE[entity], fraud_code(entity)
    days = figure.window_ms // _DAY_MS
    past = f"{days} day{'s' if days > 1 else ''}"
    kind = " at this kind of merchant"
    other = CALLED.get(_NAMES.get(figure.column, ""), figure.column)
    return {
        "count": Phrase(f"{{}} purchases{where} in {past}", "V1", count, one=f"1 purchase{where} in {past}"),
        "mean": Phrase(f"purchases of {{}} on average{where} in {past}", "A1", money),
        "std": Phrase(f"amounts{where} that differ by {{}} in {past}", "A1", money),
        "max": Phrase(f"largest amount{where} in {past} was {{}}", "A1", money),
        "count_distinct": Phrase(
            f"{{}} different {other}s{where} in {past}", "V1", count, one=f"a single {other}{where} in {past}"
        ),
        "fraud_count": Phrase(
            f"{{}} frauds reported{where} in {past}", fraud, count, one=f"1 fraud reported{where} in {past}",
            told=positive,
        ),
        "fraud_rate": Phrase(f"{{}} of purchases{where} in {past} were fraud", fraud, share, told=positive),
        "fraud_risk": Phrase(f"about {{}} of purchases{where} are fraud", fraud, share, told=positive),
        "days_genuine_minus_fraud": Phrase(
            f"fraud was reported{where}, and no purchase since is known to be genuine", fraud, told=positive
        ),
        "days_since_first_fraud": Phrase(
            f"fraud{where} since {{}} days", fraud, count, one=f"fraud{where} since 1 day"
        ),
        "share": Phrase(f"{{}} of all purchases are{where}", "H1", share),
        "category_share": Phrase(f"{{}} of all purchases are{kind}", "C1", share),
        "category_mean": Phrase(f"purchases of {{}} on average{kind}", "A1", money),
        "category_std": Phrase(f"amounts{kind} that differ by {{}}", "A1", money),
    }.get(figure.function)  # fmt: skip


def of_state(entity: str, figure: Figure) -> Phrase | None:
    """The phrase of what is read from an entity's state."""
    where, words = WHERE[entity], window_words(figure.window_ms)
    month, mean = f"{entity}_txn_count_30d", f"{entity}_amount_mean_30d"
    tracked = _NAMES.get(figure.column, "")
    other = CALLED.get(tracked, figure.column)
    if figure.function == "new":
        within = f" in {words}" if figure.window_ms < 30 * _DAY_MS else ""
        return first_of(entity, tracked, within)
    return {
        "count": Phrase(
            f"{{}} purchases{where} in {words}", "V1", count, one=f"1 purchase{where} in {words}",
            usual=month, usually=usual_rate,
        ),
        "sum": Phrase(f"{{}} spent{where} in {words}", "V1", money),
        "mean": Phrase(f"purchases of {{}} on average{where} in {words}", "A1", money, usual=mean),
        "std": Phrase(f"amounts{where} that differ by {{}} in {words}", "A1", money),
        "count_distinct": Phrase(
            f"{{}} different {other}s{where} in {words}", "V1", count,
            one=f"a single {other}{where} in {words}",
        ),
        "seconds_since_last": Phrase(f"last purchase{where} {{}} before", "V1", duration),
        "seconds_since_first": Phrase(f"first known purchase{where} {{}} before", "H1", duration),
        "zscore": Phrase(f"amount {{}} the other amounts{where} of {words}", "A1", compared),
        "distance": Phrase(f"{{}} km from the last purchase{where}", "L1", count),
        "speed": Phrase(f"{{}} km/h from the last purchase{where} to this one", "L1"),
    }.get(figure.function)  # fmt: skip


def of_request(entity: str | None, figure: Figure) -> Phrase | None:
    """The phrase of a feature of the transaction, alone or held against the history of `entity`."""
    if entity is None:
        return _TIMES.get(figure.function) or _ALONE.get(figure.column)
    where = WHERE[entity]
    held = _BATCH.get(figure.columns[-1])
    if figure.function == "rate":
        words = window_words(_STATES[figure.columns[0]].window_ms)
        return Phrase(f"{{}} times as many purchases{where} in {words} as usual", "V1", times, told=positive)
    if figure.function == "deviation":
        kind = held is not None and held.function.startswith("category_")
        usual = " at this kind of merchant" if kind else where
        return Phrase(f"amount {{}} what is usual{usual}", "A1", compared)
    if figure.function == "over" and held is not None and held.function == "max":
        return Phrase(f"amount {{}} times the largest{where} in {window_words(held.window_ms)}", "A1", times)
    if figure.function == "over":
        return Phrase(f"amount {{}} times the usual{where}", "A1", times)
    return Phrase(f"{{}} km from where the {entity} usually is", "L1", count)
