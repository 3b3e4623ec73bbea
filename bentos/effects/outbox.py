"""Effects of a decision on Redis: its answer remembered for 24 hours, its event appended once.

Both happen in one script, so that a transaction id enters the event log exactly once however
often the request is repeated. The write is sent before the answer leaves and not waited for.
What Redis does not acknowledge goes to a file and is sent again, in order, when it is back: the
script makes that safe.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import hiredis

from bentos.effects.backlog import Backlog
from bentos.effects.backlog import Effect as Effect
from bentos.once.claims import ANSWER, answer_key, read_value
from bentos.wire.redis_cluster import connection_to
from bentos.wire.redis_connection import Exchange, RedisUnavailable, pack
from stores.keys import Seal
from stores.spool import SpoolFull

#: KEYS per effect: the answer's key and, if events go to this Redis, the stream. ARGV: whether they do (2)
#: or not (1); per effect the answer and the event, if there is a stream. Nothing happens twice. Returns
#: how many effects were new. (What is no string was planted: an error for it would hold up those behind.)
FINISH: Final = b"""
local each, new = tonumber(ARGV[1]), 0
for at = 1, #KEYS, each do
  local known = redis.pcall('GET', KEYS[at])
  if type(known) ~= 'string' or string.byte(known, 1) ~= 65 then
    if each == 2 then redis.call('XADD', KEYS[at + 1], '*', 'v', ARGV[at + 2]) end
    redis.call('SET', KEYS[at], ARGV[at + 1], 'EX', 86400)
    new = new + 1
  end
end
return new
"""
_FINISH_SHA: Final = hashlib.sha1(FINISH, usedforsecurity=False).hexdigest().encode()
_PATIENCE: Final = 1.0
#: Seconds until an effect without an acknowledgement is late.
_LATE: Final = 0.5
#: Effects sent again in one round trip, and most effects of one call of the script, during which Redis
#: does nothing else.
_CHUNK: Final = 200
_CALL: Final = 64


@dataclass(frozen=True, slots=True)
class _Sent:
    """Effects on their way; without an `exchange` they wait for those before them."""

    effects: Sequence[Effect]
    exchange: Exchange | None


class Outbox:
    """Sends effects to one Redis. One event loop owns it; `start` before use, `close` at the end.

    `streams` are the event log's, by partition; without any, only answers are written. `name`
    keeps the files of several outboxes apart. `seal` is for the purpose `outbox`; `unverified` is told of
    what it does not verify. In a Redis Cluster one script may touch one slot
    only: an outbox with streams there marks ids that it has appended beside each stream, and
    remembers no answers.
    """

    def __init__(
        self, url: str, home: Path, streams: Sequence[bytes] = (), *, seal: Seal, name: str = "redis",
        unverified: Callable[[str, int], None] = lambda what, number: None,
    ) -> None:  # fmt: skip
        self._streams = tuple(streams)
        self._connection = connection_to(url)
        self._beside = self._connection.address.kind == "cluster"
        self._backlog = Backlog(home / "outbox" / name, seal, unverified)
        self._under_way: deque[_Sent] = deque()
        self._draining: asyncio.Task[None] | None = None

    @property
    def spooled(self) -> int:
        """Effects that wait for Redis, on disk or in memory."""
        return self._backlog.waiting

    @property
    def late(self) -> bool:
        """Whether Redis lacks effects that it should have by now."""
        if self._backlog.waiting:
            return True
        first = self._under_way[0].exchange if self._under_way else None
        return first is not None and asyncio.get_running_loop().time() - first.sent > _LATE

    @property
    def accepting(self) -> bool:
        return not self._backlog.full

    async def start(self) -> None:
        self._backlog.adopt()
        await self._connect()

    def send(self, effects: Sequence[Effect]) -> bool:
        """Write `effects` now, or spool them; False when they were spooled. Raises `SpoolFull`."""
        # Behind others that wait: one customer's events keep their order.
        if not self.spooled and self._connection.connected:
            with suppress(RedisUnavailable):
                exchange = self._connection.send(
                    [self._command(b"EVALSHA", _FINISH_SHA, call) for call in self._calls(effects)]
                )
                self._under_way.append(_Sent(effects, exchange))
                exchange.future.add_done_callback(self._settle)
                return True
        if self._under_way:  # whose fate is not known yet
            self._under_way.append(_Sent(effects, None))
        else:
            self._backlog.keep(effects)
        return False

    def _settle(self, _: asyncio.Future[None]) -> None:
        """Spool, in order, what was not acknowledged."""
        while self._under_way:
            first = self._under_way[0]
            lost = first.effects
            if first.exchange is not None:
                if not first.exchange.future.done():
                    return
                lost = self._unacknowledged(first.effects, first.exchange)
            self._under_way.popleft()
            # When memory is full too, the decision log still has them; nothing else can be done here.
            with suppress(SpoolFull):
                if lost:
                    self._backlog.keep(lost)

    def _calls(self, effects: Sequence[Effect]) -> list[Sequence[Effect]]:
        """`effects` by call of the script: in a cluster each has slots of its own."""
        most = 1 if self._beside else _CALL
        return [effects[start : start + most] for start in range(0, len(effects), most)]

    def _command(self, verb: bytes, script: bytes, effects: Sequence[Effect]) -> bytes:
        """One call of the script for `effects`."""
        keys: list[bytes] = []
        values: list[bytes] = []
        for effect in effects:
            if not self._streams:
                keys.append(effect.key)
                values.append(effect.answer)
                continue
            # A backlog may be older than the number of partitions.
            stream = self._streams[effect.partition % len(self._streams)]
            if self._beside:
                keys += (b"{%b}%b" % (stream, effect.key), stream)
                values += (ANSWER, effect.event)
            else:
                keys += (effect.key, stream)
                values += (effect.answer, effect.event)
        each = b"2" if self._streams else b"1"
        return pack(verb, script, b"%d" % len(keys), *keys, each, *values)

    def _unacknowledged(self, effects: Sequence[Effect], exchange: Exchange) -> list[Effect]:
        replies = exchange.replies.objects()
        if not exchange.future.cancelled():
            exchange.future.exception()  # retrieved: a lost connection is no surprise
        return [
            effect
            for place, call in enumerate(self._calls(effects))
            if place >= len(replies) or _refused(replies[place])
            for effect in call
        ]

    async def tick(self) -> None:
        """Once in a while: reconnect, and send what waits."""
        self._backlog.retry_disk()
        if not self._connection.connected:
            await self._connect()
        if self._connection.connected and self.spooled and self._draining is None:
            self._draining = asyncio.create_task(self._drain())
            self._draining.add_done_callback(self._drained)

    def _drained(self, task: asyncio.Task[None]) -> None:
        self._draining = None
        if not task.cancelled():
            task.exception()

    async def _connect(self) -> None:
        with suppress(RedisUnavailable):
            await self._connection.open()
            await self._connection.everywhere(pack(b"SCRIPT", b"LOAD", FINISH), _PATIENCE)

    async def _drain(self) -> None:
        """Send the backlog in order; forget it once everything in it is acknowledged."""
        while effects := self._backlog.part():
            for start in range(0, len(effects), _CHUNK):
                chunk = effects[start : start + _CHUNK]
                commands = [self._command(b"EVAL", FINISH, call) for call in self._calls(chunk)]
                try:
                    replies = await self._connection.exchange(commands, _PATIENCE)
                except RedisUnavailable:
                    return
                if len(replies) < len(commands) or any(_refused(reply) for reply in replies):
                    return
            self._backlog.delivered()
        self._backlog.clear()  # no await since the last look: nothing can have been added in between

    async def close(self) -> None:
        """Send what waits, as far as Redis answers, and keep the rest for the next worker."""
        await self.tick()
        if self._draining is not None:
            await asyncio.wait([self._draining], timeout=2.0)
        if self._connection.connected:
            with suppress(RedisUnavailable):
                await self._connection.everywhere(pack(b"PING"), _PATIENCE)  # behind every write
        self._connection.close()
        self._backlog.close()


def _refused(reply: object) -> bool:
    return reply is None or isinstance(reply, hiredis.ReplyError)


def remembered_answers(url: str, project: str, seal: Seal) -> Iterator[tuple[str, bytes | None]]:
    """Every answer that the Redis at `url` remembers: transaction id and JSON, None for what does not
    verify. Blocks; not for a service.
    """
    from stores.redis_clients import ServerError, connect_any  # redis-py, which no service needs

    prefix = answer_key(project, "")
    pattern = re.sub(rb"([*?\[\]\\])", rb"\\\1", prefix) + b"*"
    with connect_any(url) as client:
        for key in client.scan_iter(match=pattern, count=1000):
            try:
                value = client.get(key)
            except ServerError:  # no string
                value = b""
            if value is None:  # gone meanwhile
                continue
            stored = read_value(seal, key, value)
            if stored is None or stored.answered:
                yield key[len(prefix) :].decode(errors="replace"), stored and stored.rest
