"""Stairs: the values that can still be the largest of a window, descending with time.

A value hides every earlier one that is no larger (the ascending minima of Richard Harter, turned around),
so the largest of the last W milliseconds is the first step inside them. For minima, values are negated.
"""

from __future__ import annotations

from fraud.declared.layout import STEP, STEPS

#: Time of a step's newest value, its largest value, its last one.
Step = tuple[int, float, float]


def put(steps: list[Step], time: int, value: float) -> None:
    """Put a value where its time belongs, unless a later one hides it."""
    end = len(steps)
    while end and steps[end - 1][0] > time:
        end -= 1
    if end < len(steps) and steps[end][1] >= value:  # hidden by a later one
        return
    at = end
    while at and steps[at - 1][1] <= value:
        at -= 1
    steps[at:end] = [(time, value, value)]


def fewer_steps(steps: list[Step]) -> list[Step]:
    """At most `STEPS` steps: neighbours within `STEP` of each other become one, as large as the first
    and as long-lived as the last; the step grows by quarters until they are few enough."""
    share = STEP
    while True:
        fewer = [steps[0]]
        for time, high, low in steps[1:]:
            _, first, _ = fewer[-1]
            if first - low <= share * abs(first):
                fewer[-1] = (time, first, low)
            else:
                fewer.append((time, high, low))
        if len(fewer) <= STEPS:
            return fewer
        share *= 1.25
