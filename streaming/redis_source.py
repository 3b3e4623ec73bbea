"""Redis Streams as an event log: one stream per partition, read by id without consumer groups."""

from __future__ import annotations

from typing import Any

from fraud.event_log import stream_name
from streaming.batch import Batch, LogAwayError
from streaming.redis_link import AWAY, node_of

_EMPTY = Batch([], [], [])


class RedisStreamReader:
    """One stream, read from after a given entry id. Implements `PartitionReader`."""

    def __init__(self, url: str, topic: str, partition: int, position: str | None, count: int) -> None:
        self._url = url
        self._client: Any = None
        self._connection: Any = None
        self._stream = stream_name(topic, partition)
        self._last = position or "0-0"
        self._count = count

    def read(self) -> Batch:
        reply = self._call("XREAD", "COUNT", self._count, "STREAMS", self._stream, self._last)
        if not reply:
            return _EMPTY
        # RESP3 answers a map, RESP2 a list of pairs.
        entries = reply[self._stream.encode()] if isinstance(reply, dict) else reply[0][1]
        ids = [entry[0].decode() for entry in entries]
        self._last = ids[-1]
        # An entry without the one field `v` becomes an empty payload, hence a dead letter.
        payloads = [entry[1][1] if entry[1] and entry[1][0] == b"v" else b"" for entry in entries]
        return Batch(payloads, ids, [int(text.partition("-")[0]) for text in ids])

    def position(self) -> str:
        return self._last

    def end(self) -> str:
        newest = self._call("XREVRANGE", self._stream, "+", "-", "COUNT", 1)
        return newest[0][0].decode() if newest else "0-0"

    def reached(self, position: str) -> bool:
        return _order(self._last) >= _order(position)

    def lag(self) -> float:
        """Seconds between the newest entry and the newest entry read."""
        return max(0, _order(self.end())[0] - _order(self._last)[0]) / 1000

    def release(self, position: str) -> None:
        milliseconds, sequence = _order(position)
        self._call("XTRIM", self._stream, "MINID", "~", f"{milliseconds}-{sequence + 1}")

    def close(self) -> None:
        self._disconnect()

    def _call(self, *command: str | int) -> Any:
        """One command on a connection of our own: redis-py's parsed replies cost more than the read."""
        try:
            if self._connection is None:
                self._client = node_of(self._url, self._stream)
                self._connection = self._client.connection_pool.get_connection()
            self._connection.send_command(*command)
            return self._connection.read_response()
        except AWAY as error:
            self._disconnect()  # and ask anew which node has the stream
            raise LogAwayError(str(error)) from None

    def _disconnect(self) -> None:
        if self._connection is not None:
            self._connection.disconnect()
            self._client.close()
            self._connection = None


def _order(entry_id: str) -> tuple[int, int]:
    milliseconds, _, sequence = entry_id.partition("-")
    return int(milliseconds), int(sequence or 0)
