"""What one read of one partition of the event log yields."""

from __future__ import annotations

from typing import NamedTuple, Protocol

#: One record to append: partition, payload, and the key by which Kafka finds the partition instead, if any.
Record = tuple[int, bytes, str | None]


class LogAwayError(ConnectionError):
    """The event log cannot be reached just now; reading it again later may work."""


class LogPositionError(RuntimeError):
    """The event log no longer holds the position to resume from; the text says what to do."""


class Batch(NamedTuple):
    """Events of one partition, in log order; an empty one stands for a record without a value.

    `positions` name each event inside its partition, `appended_ms` is when the log took it
    (wall clock, UTC milliseconds; 0 where the log does not say).
    """

    payloads: list[bytes]
    positions: list[str]
    appended_ms: list[int]


class PartitionReader(Protocol):
    """Reads one partition from a position on, never blocking."""

    def read(self) -> Batch:
        """The next events, or an empty batch; raises `LogAwayError`."""

    def position(self) -> str:
        """Where the next read starts: what `read` has returned lies before it."""

    def end(self) -> str:
        """A position at which everything now in the log has been read."""

    def reached(self, position: str) -> bool:
        """Whether this reader has come to `position`."""

    def lag(self) -> float:
        """How far this reader is behind the log's end: events where known, else seconds."""

    def release(self, position: str) -> None:
        """Everything before `position` will never be read again and may be deleted."""

    def tell(self, position: str) -> None:
        """A snapshot holds `position`: tell the log's own tools, where it has some."""

    def close(self) -> None:
        """Give up connections."""
