"""Writes newest states into the online store in Feast's bytes: one script call for many rows, newest wins."""

from __future__ import annotations

import hashlib
import time
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import Any, Final, NamedTuple

import hiredis
import redis

from fraud.contract.transaction import FUTURE_TOLERANCE_MS
from stores.redis_clients import connect
from stores.redis_layout import NEWEST_WINS, decode_timestamp, field, ts_field
from stores.redis_url import is_cluster
from streaming.online.cluster_link import ClusterLink
from streaming.online.online_rows import KeyEncoder, timestamp
from streaming.online.online_rows import value as value_bytes
from streaming.states.shard_batch import SHARDS, Writes
from streaming.states.tracks import STANDARD, Track

#: Most keys in one script call: long calls would hold up the scoring service's reads.
MOST_KEYS: Final = 256
#: Most calls sent before their replies are read, so that neither side's buffer fills. (A reply is one
#: number: a thread that sends many at once need not stop for them.)
_MOST_CALLS: Final = 64
#: States in one write from which on a thread sends them: the socket's buffers do not hold them, and the
#: flow would wait for the server to read them.
_MANY: Final = 2_000
_MOST_READS: Final = 1_000
#: Keys of an entity that are remembered.
_KEYS_KEPT: Final = 1 << 15
_SHA: Final = hashlib.sha1(NEWEST_WINS.encode(), usedforsecurity=False).hexdigest()


class Call(NamedTuple):
    """Rows of one view: key, version and packed state of each."""

    place: int
    keys: list[bytes]
    versions: list[int]
    states: list[bytes]


class OnlineWriter:
    """Writes packed states of any entity; remembers nothing but its connection."""

    def __init__(self, url: str, project: str, tracks: Sequence[Track] = STANDARD) -> None:
        self._cluster = ClusterLink(url) if is_cluster(url) else None
        self._client = None if self._cluster else connect(url)
        self._connection: Any = None
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="online")
        self._sending: Future[None] | None = None
        self._unread: deque[Call] = deque()
        self._unknown: list[Call] = []
        self._written = 0
        self._key = KeyEncoder(project, [track.key for track in tracks]).key
        self._keys: list[dict[str, bytes]] = [{} for _ in tracks]
        self._views = [track.view for track in tracks]
        self._fixed = [(ts_field(track.view), b"1", field(track.view, track.feature)) for track in tracks]

    def write(self, writes: list[Writes]) -> int:
        """Write every state; return how many were newer than what was stored.

        Raises what redis-py raises when the server is away; writing again is harmless.
        """
        self.send(writes)
        return self.settle()

    def send(self, writes: list[Writes]) -> None:
        """Write every state without waiting for the server, which works while the flow does."""
        if self._cluster is not None:
            self._written += self._write_cluster(writes)
            return
        self._sent()
        calls = list(self._calls(writes, MOST_KEYS))
        if sum([len(call.keys) for call in calls]) >= _MANY:
            while self._unread:
                self._read_reply()
            commands = [self._command(("EVALSHA", _SHA), call) for call in calls]
            self._sending = self._thread.submit(self._connected().send_packed_command, commands)
            self._unread.extend(calls)
            return
        for call in calls:
            if len(self._unread) >= _MOST_CALLS:
                self._read_reply()
            self._connected().send_packed_command([self._command(("EVALSHA", _SHA), call)])
            self._unread.append(call)

    def settle(self) -> int:
        """Wait for the answers to all that was sent; return how many states were newer."""
        self._sent()
        while self._unread:
            self._read_reply()
        for call in self._unknown:  # a restarted server has forgotten the script: EVAL loads it again
            connection = self._connected()
            connection.send_packed_command([self._command(("EVAL", NEWEST_WINS), call)])
            self._written += connection.read_response()
        self._unknown.clear()
        written, self._written = self._written, 0
        return written

    def disconnect(self) -> None:
        """Drop the connection and what was not answered; the next write opens another."""
        self._unread.clear()
        self._unknown.clear()
        self._written = 0
        if self._connection is not None:
            self._connection.disconnect()
        sending, self._sending = self._sending, None
        if sending is not None:
            wait([sending])  # the socket is closed under it
            self._connection.disconnect()  # should it have connected anew
        if self._cluster is not None:
            self._cluster.disconnect()

    def close(self) -> None:
        self.disconnect()
        self._thread.shutdown()
        if self._client is not None:
            self._client.close()

    def _calls(self, writes: list[Writes], most: int) -> Iterator[Call]:
        """Calls of at most so many rows; a key written twice keeps its newest state only."""
        by_shard: dict[int, list[Writes]] = {}
        for batch in writes:
            by_shard.setdefault(batch.shard, []).append(batch)
        by_place: dict[int, Call] = {}
        for shard, batches in by_shard.items():
            if len(batches) == 1:
                values, versions, states = batches[0].values, batches[0].versions, batches[0].states
            else:
                newest = {
                    value: (version, state)
                    for batch in batches
                    for value, version, state in zip(batch.values, batch.versions, batch.states, strict=True)
                }
                values = list(newest)
                versions = [version for version, _ in newest.values()]
                states = [state for _, state in newest.values()]
            place = shard // SHARDS
            rows = by_place.setdefault(place, Call(place, [], [], []))
            rows.keys.extend(self._encoded(place, values))
            rows.versions.extend(versions)
            rows.states.extend(states)
        for place, keys, versions, states in by_place.values():
            for at in range(0, len(keys), most):
                end = at + most
                yield Call(place, keys[at:end], versions[at:end], states[at:end])

    def _encoded(self, place: int, values: list[str]) -> list[bytes]:
        """The Redis keys of `values`: most have been written before."""
        known = self._keys[place]
        if len(known) > _KEYS_KEPT:
            known.clear()
        encoded = []
        for value in values:
            key = known.get(value)
            if key is None:
                key = known[value] = self._key(place, value)
            encoded.append(key)
        return encoded

    def _command(self, script: tuple[str, str], call: Call) -> bytes:
        rows: list[Any] = [None] * (3 * len(call.keys))
        rows[0::3] = call.versions
        rows[1::3] = map(timestamp, call.versions)
        rows[2::3] = map(value_bytes, call.states)
        packed: bytes = hiredis.pack_command(
            (*script, len(call.keys), *call.keys, *self._fixed[call.place], *rows)
        )
        return packed

    def _sent(self) -> None:
        """Wait until the thread has sent what it was given; raises what redis-py raised there."""
        sending, self._sending = self._sending, None
        if sending is not None:
            sending.result()

    def _connected(self) -> Any:
        assert self._client is not None
        if self._connection is None:
            self._connection = self._client.connection_pool.get_connection()
        return self._connection

    def _read_reply(self) -> None:
        """Read the oldest answer that is due."""
        call = self._unread.popleft()
        try:
            self._written += self._connection.read_response()
        except redis.exceptions.NoScriptError:
            self._unknown.append(call)

    def _write_cluster(self, writes: list[Writes]) -> int:
        """One script call per key, since a call may touch one slot only; sent to all nodes at once."""
        calls = list(self._calls(writes, 1))
        written = 0
        for at in range(0, len(calls), MOST_KEYS):
            part = calls[at : at + MOST_KEYS]
            replies = self._call_each(("EVALSHA", _SHA), part)
            unknown = [
                call
                for call, reply in zip(part, replies, strict=True)
                if isinstance(reply, redis.exceptions.NoScriptError)
            ]
            if unknown:  # a node is new, or was restarted: EVAL loads the script
                replies += self._call_each(("EVAL", NEWEST_WINS), unknown)
            for reply in replies:
                if isinstance(reply, redis.exceptions.NoScriptError):
                    continue
                if isinstance(reply, redis.ResponseError):
                    raise reply
                written += reply
        return written

    def _call_each(self, script: tuple[str, str], calls: list[Call]) -> list[Any]:
        assert self._cluster is not None
        return self._cluster.call([(call.keys[0], self._command(script, call)) for call in calls])

    def versions(self, place: int, values: list[str]) -> list[int]:
        """The stored version (microseconds, 0 if none) of each of `values` of an entity."""
        name = ts_field(self._views[place])
        found: list[int] = []
        for at in range(0, len(values), _MOST_READS):
            keys = self._encoded(place, values[at : at + _MOST_READS])
            found.extend(map(_version, self._stored(keys, name)))
        return found

    def _stored(self, keys: list[bytes], name: bytes) -> list[Any]:
        if self._cluster is not None:
            commands: list[tuple[Any, ...]] = [("HGET", key, name) for key in keys]
            return self._cluster.call([(command[1], hiredis.pack_command(command)) for command in commands])
        client: Any = self._client
        pipeline = client.pipeline(transaction=False)
        for key in keys:
            pipeline.hget(key, name)
        stored: list[Any] = pipeline.execute(raise_on_error=False)
        return stored


def _version(stored: Any) -> int:
    """The version that a row has in Redis, 0 where there is none, or none of ours.

    Whoever may write to Redis can put anything there: it ends no flow, and no version from far ahead
    keeps honest ones out.
    """
    if isinstance(stored, Exception):
        if not str(stored).startswith("WRONGTYPE"):
            raise stored
        return 0
    try:
        found = decode_timestamp(stored) if stored else 0
    except ValueError:
        return 0
    return found if found <= time.time_ns() // 1000 + FUTURE_TOLERANCE_MS * 1000 else 0
