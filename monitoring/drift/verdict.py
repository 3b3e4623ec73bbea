"""From measures to words: what changed, since when, how sure, what it costs and what to do.

The rule, in order of gravity:

- *retrain*: matured labels show worse ranking or a changed kind of fraud, or the score itself
  moved together with a quarter or more of the model's weight in drifted features;
- *recalibrate*: scores still rank, but no longer mean the probability they did;
- *watch*: inputs moved and the score did not, so far;
- *nothing*: nothing moved beyond what quiet weeks show.

Not every column has a vote. Derived columns (velocity, profiles, fraud rates) echo attacks, which
come in bursts of any size, and there are hundreds of them: by themselves they are listed and no
more. What counts is what transactions say of themselves (`txn_...`), the score and the decisions,
views that were not fresh, a field that clearly goes missing, and a shift of half of all columns.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from monitoring.drift.measures import ColumnDrift
from monitoring.drift.performance import PerformanceSignal
from monitoring.page import Tone, number, percent

Action = Literal["nothing", "watch", "recalibrate", "retrain"]

ACTIONS: Final[tuple[Action, ...]] = ("nothing", "watch", "recalibrate", "retrain")
TONES: Final[dict[Action, Tone]] = {
    "nothing": "good",
    "watch": "watch",
    "recalibrate": "watch",
    "retrain": "bad",
}
HEADLINES: Final[dict[Action, str]] = {
    "nothing": "Nothing to do",
    "watch": "Watch: inputs moved, the decisions hold",
    "recalibrate": "Recalibrate: scores no longer mean what they did",
    "retrain": "Retrain: the model no longer fits what it sees",
}
#: Share of the model's importance in drifted features from which a moved score means retraining.
HEAVY: Final = 0.25
#: Columns that a transaction states itself begin like this.
OWN: Final = "txn_"
#: A change of missingness counts from this multiple of its limit on.
CLEARLY: Final = 2.0
#: From this share of columns on, derived ones count too.
BROAD: Final = 0.5
#: Names of the drift columns that are the model's output, not its input.
OUTPUTS: Final = ("score", "decision")
SEGMENT_COLUMNS: Final = ("channel", "merchant_category", "country", "currency")


@dataclass(frozen=True, slots=True)
class Costs:
    """What decisions cost, in major units of the reference currency."""

    review: float = 4.0
    insult: float = 25.0


@dataclass(frozen=True, slots=True)
class Since:
    """The first day from which a column stayed beyond its limit, of how many days."""

    day: str
    days_beyond: int
    days: int


@dataclass(frozen=True, slots=True)
class Verdict:
    """The first page of a report."""

    action: Action
    changed: list[str]
    since: str
    sure: str
    costs: str
    todo: str

    @property
    def headline(self) -> str:
        return HEADLINES[self.action]

    @property
    def tone(self) -> Tone:
        return TONES[self.action]


def voting(drifts: Sequence[ColumnDrift]) -> list[ColumnDrift]:
    """The drifted columns that count; see the module's text."""
    drifted = [drift for drift in drifts if drift.drifted]
    if len(drifted) >= BROAD * len(drifts):
        return drifted
    return [drift for drift in drifted if _votes(drift)]


def _votes(drift: ColumnDrift) -> bool:
    direct = drift.column.startswith(OWN) or drift.column in (*OUTPUTS, *SEGMENT_COLUMNS)
    goes_missing = "missing" in drift.passed and drift.values["missing"] >= CLEARLY * drift.limits["missing"]
    return direct or drift.kind == "view" or goes_missing


def decide(
    drifted: Sequence[ColumnDrift], performance: Sequence[PerformanceSignal], importance: Mapping[str, float]
) -> Action:
    """The action that the rule of this module gives."""
    beyond = {signal.name for signal in performance if signal.beyond}
    moved = {drift.column for drift in drifted}
    total = sum(importance.values())
    weight = sum(importance.get(name, 0.0) for name in moved) / total if total else 0.0
    if beyond & {"average_precision", "fraud_amount", "caught"}:
        return "retrain"
    if "score" in moved and weight >= HEAVY:
        return "retrain"
    if beyond & {"calibration", "fraud_rate"} or moved & set(OUTPUTS):
        return "recalibrate"
    return "watch" if moved else "nothing"


def phrase(drift: ColumnDrift) -> str:
    """One sentence on one drifted column."""
    name = drift.column.replace("_", " ")
    if drift.kind == "view":
        return f"{name} was stale or timed out in {percent(drift.current_missing)} of decisions"
    if "missing" in drift.passed:
        return f"{name} is missing in {percent(drift.current_missing)} of rows, before in {percent(drift.reference_missing)}"
    if drift.passed == ("unseen",):
        return f"{name} has values that the reference never had, in {percent(drift.values['unseen'], 2)} of decisions"
    if drift.kind == "numeric" and drift.reference_mean is not None and drift.current_mean is not None:
        base = drift.reference_mean
        change = f" ({(drift.current_mean - base) / abs(base):+.0%})" if base else ""
        return (
            f"{name}: average {number(base)} → {number(drift.current_mean)}{change}, "
            f"median {number(drift.reference_median)} → {number(drift.current_median)}"
        )
    return (
        f"{name}: the mix of its values changed (Jensen-Shannon distance {number(drift.values.get('js'), 2)})"
    )


def performance_phrase(signal: PerformanceSignal) -> str:
    """One sentence on one statistic of matured transactions."""
    e = signal.current
    scale = 0.01 if signal.name == "fraud_amount" else 1.0
    return (
        f"{signal.title}: {number(scale * signal.baseline)} → {number(scale * e.value)} "
        f"(95% interval {number(scale * e.low)} to {number(scale * e.high)})"
    )


def judge(
    drifts: Sequence[ColumnDrift],
    performance: Sequence[PerformanceSignal],
    since: Mapping[str, Since],
    *,
    importance: Mapping[str, float],
    quiet_weeks: int,
    alerts_per_day: tuple[float, float] | None,
    prevented: str | None,
    costs: Costs,
) -> Verdict:
    """The verdict in words.

    `alerts_per_day` are reviews and blocks a day at the reference and now; `prevented` is a
    sentence on money from matured labels, if there are any.
    """
    votes = voting(drifts)
    echoes = sum(drift.drifted for drift in drifts) - len(votes)
    beyond = [signal for signal in performance if signal.beyond]
    action = decide(votes, performance, importance)
    changed = [performance_phrase(signal) for signal in beyond]
    ranked = sorted(
        votes, key=lambda d: (d.column not in OUTPUTS, -d.strength * (1 + importance.get(d.column, 0)))
    )
    changed += [phrase(drift) for drift in ranked[:6]]
    if len(ranked) > 6:
        changed.append(f"and {len(ranked) - 6} more columns, listed below")
    if not changed:
        strongest = max(
            (d for d in drifts if d not in votes and not d.drifted), key=lambda d: d.strength, default=None
        )
        near = (
            f"; the closest to its limit is {strongest.column} at {strongest.strength:.0%}"
            if strongest
            else ""
        )
        changed = [f"nothing that counts moved beyond its limit{near}"]
    if echoes:
        changed.append(f"{echoes} derived columns moved as well, as they do when attacks come and go")
    return Verdict(
        action=action,
        changed=changed,
        since=_since(ranked, beyond, since),
        sure=_sure(ranked, beyond, since, quiet_weeks),
        costs=_costs(alerts_per_day, prevented, costs, has_labels=bool(performance)),
        todo=_todo(action, ranked, beyond),
    )


def _since(
    drifted: Sequence[ColumnDrift], beyond: Sequence[PerformanceSignal], since: Mapping[str, Since]
) -> str:
    days = sorted({since[d.column].day for d in drifted if d.column in since})
    if days:
        return days[0] if len(days) == 1 else f"{days[0]} for the first column, {days[-1]} for the last"
    if beyond:
        return "the week whose labels have matured now"
    return "no single day stands out" if drifted else "–"


def _sure(
    drifted: Sequence[ColumnDrift],
    beyond: Sequence[PerformanceSignal],
    since: Mapping[str, Since],
    quiet_weeks: int,
) -> str:
    basis = (
        f"limits were calibrated on {quiet_weeks} quiet weeks"
        if quiet_weeks
        else "limits are the defaults; calibrate them on quiet weeks to know better"
    )
    if beyond:
        return f"sure: the 95% interval excludes the baseline; {basis}"
    if not drifted:
        return basis
    strength = max(drift.strength for drift in drifted)
    lasting = [since[d.column] for d in drifted if d.column in since]
    every_day = any(entry.days_beyond == entry.days for entry in lasting)
    word = "sure" if strength >= 2 and every_day else "likely" if strength >= 1.5 or every_day else "possible"
    days = (
        f", beyond it on {max(e.days_beyond for e in lasting)} of {lasting[0].days} days" if lasting else ""
    )
    return f"{word}: the strongest column is at {strength:.1f} times its limit{days}; {basis}"


def _costs(
    alerts: tuple[float, float] | None, prevented: str | None, costs: Costs, *, has_labels: bool
) -> str:
    parts = []
    if alerts is not None:
        change = alerts[1] - alerts[0]
        parts.append(
            f"{alerts[1]:,.0f} alerts a day instead of {alerts[0]:,.0f}: {change * costs.review:+,.0f} a day in reviews"
        )
    if prevented:
        parts.append(prevented)
    elif not has_labels:
        parts.append("the cost in fraud is known once labels have matured")
    return "; ".join(parts)


def _todo(action: Action, drifted: Sequence[ColumnDrift], beyond: Sequence[PerformanceSignal]) -> str:
    missing = [
        drift.column
        for drift in drifted
        if "missing" in drift.passed
        and drift.kind != "view"
        and drift.current_missing > drift.reference_missing
    ]
    views = [drift.column for drift in drifted if drift.kind == "view"]
    first = ""
    if views:
        first = f"First see to what fills {views[0]}: the 6-hour run, the stream, or Redis. "
    if missing:
        first += (
            f"First find why {missing[0]} {'and others are' if len(missing) > 1 else 'is'} missing: a feed or a field "
            "broke more often than the world changed. Retraining would only teach the gap. "
        )
    if action == "nothing":
        return "Nothing. The next report comes in a week."
    if action == "watch":
        return (
            first + "Read the columns below; if they stay for a second week, retrain on weeks that hold them."
        )
    if action == "recalibrate":
        return first + (
            "Refit the calibration on the last matured weeks and check the thresholds against the alert budget; "
            "compare on the same rows before promoting."
        )
    names = ", ".join(signal.title for signal in beyond) or "the score and its main inputs"
    return (
        first + f"Retrain with the newest matured labels ({names} moved), shadow it for a week, then promote."
    )
