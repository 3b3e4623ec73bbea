"""Redis Streams as an event log: one stream per partition, read by id without consumer groups."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

import hiredis
from redis.exceptions import ResponseError

from stores.event_log import stream_name
from stores.redis_clients import AWAY, connect, connect_cluster, node_of
from stores.redis_url import is_cluster
from streaming.log.batch import Batch, LogAwayError, Record

_EMPTY = Batch([], [], [])
#: Entries in one reply: the server sends nobody else anything meanwhile, and scoring reads from it too.
_MOST_AT_ONCE: Final = 2_000


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
        ids: list[str] = []
        payloads: list[bytes] = []
        while (missing := self._count - len(ids)) > 0:
            most = min(missing, _MOST_AT_ONCE)
            try:
                entries = self._entries(most)
            except LogAwayError:
                if not ids:
                    raise
                break  # what has been read counts; the next read will find out
            ids += [entry[0].decode() for entry in entries]
            # An entry without the one field `v` becomes an empty payload, hence a dead letter.
            payloads += [entry[1][1] if entry[1] and entry[1][0] == b"v" else b"" for entry in entries]
            if ids:
                self._last = ids[-1]
            if len(entries) < most:
                break
        if not ids:
            return _EMPTY
        return Batch(payloads, ids, [int(text.partition("-")[0]) for text in ids])

    def _entries(self, most: int) -> Any:
        reply = self._call("XREAD", "COUNT", most, "STREAMS", self._stream, self._last)
        if not reply:
            return []
        # RESP3 answers a map, RESP2 a list of pairs.
        return reply[self._stream.encode()] if isinstance(reply, dict) else reply[0][1]

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

    def tell(self, position: str) -> None:
        """Nothing: there is nobody to tell."""

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


def redis_appender(url: str, topic: str) -> tuple[Callable[[Sequence[Record]], None], Callable[[], None]]:
    """How to append (partition, payload, key) records to the streams of `topic`, and to give up connections.

    Appending raises what redis-py raises; then some of the events are in the log, some are not.
    """
    if is_cluster(url):
        cluster: Any = connect_cluster(url)

        def append_to_cluster(events: Sequence[Record]) -> None:
            pipeline = cluster.pipeline()
            for partition, payload, _ in events:
                pipeline.execute_command("XADD", stream_name(topic, partition), "*", "v", payload)
            pipeline.execute()

        return append_to_cluster, cluster.close
    client = connect(url)

    def append(events: Sequence[Record]) -> None:
        """One write for all of them: redis-py's pipeline costs more than the log itself."""
        connection: Any = client.connection_pool.get_connection()
        refused: ResponseError | None = None
        try:
            commands = [
                hiredis.pack_command(("XADD", stream_name(topic, partition), "*", "v", payload))  # type: ignore[arg-type]  # its stub knows tuples of one
                for partition, payload, _ in events
            ]
            connection.send_packed_command([b"".join(commands)])
            for _ in events:
                try:
                    connection.read_response()
                except ResponseError as error:  # the other answers are still to be read
                    refused = refused or error
        finally:
            client.connection_pool.release(connection)
        if refused is not None:
            raise refused

    return append, client.close
