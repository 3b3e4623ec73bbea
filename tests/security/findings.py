"""What attempts to break the platform have found: every finding has tests that hold it.

A test says which one it holds with ``@pytest.mark.finding(name, severity, sentence)``, wherever it stands;
the sentence says what went wrong before. `python -m tests.security` runs those tests and writes
`results/security.json`. A finding without a test, or with one that fails or is skipped, is not held.
"""

from __future__ import annotations

from typing import Final, Literal, NamedTuple

Severity = Literal["critical", "high", "medium", "low"]


class Finding(NamedTuple):
    """One way in, or one way to stop the platform."""

    name: str
    severity: Severity
    title: str


#: Those that have to be held. Tests may carry findings of their own beside them (severity low, or newer).
FINDINGS: Final = (
    Finding("C1", "critical", "Every check of a caller is passed by adding %0a to the path"),
    Finding("H1", "high", "One connection without a token stops a worker: headers without bound or end"),
    Finding("H2", "high", "Unknown paths become metric series for ever, and a scrape stalls decisions"),
    Finding("H3", "high", "Whoever may produce transactions plants velocity states, or stops the flow"),
    Finding("H4", "high", "One label stops all labels"),
    Finding("H5", "high", "A caller evades velocity rules, and fills the disk, by the event time"),
    Finding("H6", "high", "An answer planted in Redis is given out unseen and unlogged"),
    Finding("H7", "high", "Whoever writes one shared file runs code in the other processes"),
    Finding("H8", "high", "The decision log's chain can be forged by whoever writes its files"),
    Finding("H9", "high", "An Upgrade header desynchronises the connection: request smuggling"),
    Finding("M1", "medium", "A model file crashes or hangs the worker, or is loaded from outside the store"),
    Finding("M2", "medium", "Transaction ids are one namespace for all clients"),
    Finding("M3", "medium", "Any label client relabels any transaction, at any time, without a rate"),
    Finding("M4", "medium", "A burst on one card is scored blind"),
    Finding("M5", "medium", "Without tokens a web page or a forwarding proxy is taken for a local caller"),
    Finding("M6", "medium", "Files with ids and addresses are readable for every local user"),
    Finding("M7", "medium", "The embedded store has no password"),
    Finding("M8", "medium", "Pods may call anywhere, and whoever scrapes reaches the scoring routes"),
    Finding("M9", "medium", "An event's identity in a state is short and unkeyed"),
)
