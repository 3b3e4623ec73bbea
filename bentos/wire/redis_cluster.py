"""A Redis Cluster behind the interface of one connection: each command goes to its key's node.

The map of slots is read when the cluster is entered, and again when a node redirects a command or
does not answer. A node that is away costs only its own keys: the others' replies still count,
and after a few failures its own breaker spares callers the wait for it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Final

from bentos.wire.breaker import CircuitBreaker
from bentos.wire.redis_connection import Exchange, RedisConnection, RedisUnavailable, pack
from bentos.wire.replies import NO_REPLIES, Replies, Reply
from stores.cluster_slots import SlotMap, redirected_to, slot
from stores.redis_url import Place, RedisAddress, parse_redis_url

#: Seconds for a question about the cluster itself, for a write, and between two such questions.
_PATIENCE: Final = 1.0
_PAUSE: Final = 0.5
_SCRIPTS: Final = (b"EVAL", b"EVALSHA")
_ASKING: Final = pack(b"ASKING")


def connection_to(url: str) -> RedisConnection | ClusterConnection:
    """What talks to the Redis or the Redis Cluster that `url` names; opens nothing yet."""
    address = parse_redis_url(url)
    return ClusterConnection(address) if address.kind == "cluster" else RedisConnection(address)


def key_of(command: bytes) -> bytes:
    """The first key in a packed command: its first argument, or a script call's third."""
    verb, at = _argument(command, command.index(b"\r\n") + 2)
    for _ in range(2 if verb in _SCRIPTS else 0):
        _, at = _argument(command, at)
    return _argument(command, at)[0]


def _argument(command: bytes, at: int) -> tuple[bytes, int]:
    end = command.index(b"\r\n", at)
    start, size = end + 2, int(command[at + 1 : end])
    return command[start : start + size], start + size + 2


class _Node:
    """One master: its connection, and a breaker of its own."""

    def __init__(self, address: RedisAddress, connect_timeout: float) -> None:
        self.connection = RedisConnection(address, connect_timeout=connect_timeout)
        self.breaker = CircuitBreaker(failures=3)

    async def ask(self, commands: Sequence[bytes], seconds: float) -> Replies:
        """The replies that came in time, the first so many; none from a node that is away."""
        if not self.breaker.allows():
            return NO_REPLIES
        try:
            replies = await self.connection.ask(commands, seconds)
        except RedisUnavailable:
            replies = NO_REPLIES
        if len(replies) < len(commands):
            self.breaker.failed()
        else:
            self.breaker.succeeded()
        return replies


class ClusterConnection:
    """Connections to all masters of a cluster. One event loop owns it."""

    def __init__(self, address: RedisAddress, *, connect_timeout: float = 0.25) -> None:
        self.address = address
        self._connect_timeout = connect_timeout
        self._slots = SlotMap(address.nodes)
        self._nodes: dict[Place, _Node] = {}
        self._owners: list[_Node] = []
        self._mapping: asyncio.Task[None] | None = None
        self._mapped_at = float("-inf")
        self._writes: set[asyncio.Task[None]] = set()

    @property
    def connected(self) -> bool:
        """Whether the slots are known and any master is connected."""
        return bool(self._owners) and any(node.connection.connected for node in self._nodes.values())

    async def open(self) -> None:
        """Learn the slots, if they are not known, and connect to every master."""
        if not self._owners:
            await asyncio.shield(self._map())
        if not self._owners:
            raise RedisUnavailable("no node of the cluster tells its slots")
        await asyncio.gather(
            *(node.connection.open() for node in self._nodes.values()), return_exceptions=True
        )

    def _map(self) -> asyncio.Task[None]:
        """Read the slots; callers share one reading."""
        if self._mapping is None:
            self._mapping = asyncio.create_task(self._read_slots())
            self._mapping.add_done_callback(self._mapped)
        return self._mapping

    def _mapped(self, task: asyncio.Task[None]) -> None:
        self._mapping = None
        self._mapped_at = asyncio.get_running_loop().time()
        if not task.cancelled():
            task.exception()

    def _map_soon(self) -> None:
        """Read the slots again beside the requests, at most every so often."""
        if asyncio.get_running_loop().time() - self._mapped_at > _PAUSE:
            self._map()

    async def _read_slots(self) -> None:
        """Take the slots from the first node that tells them."""
        for place in self._slots.nodes:
            # A connection of its own: a node that hangs must not hold up its other callers.
            asked = RedisConnection(self.address.at(place), connect_timeout=self._connect_timeout)
            try:
                replies = await asked.exchange([pack(b"CLUSTER", b"SLOTS")], _PATIENCE)
            except RedisUnavailable:
                continue
            finally:
                asked.close()
            if len(replies) == 1 and isinstance(replies[0], list) and replies[0]:
                self._take(replies[0], place)
                return

    def _take(self, ranges: Sequence[Reply], asked: Place) -> None:
        self._slots.take(ranges, asked)
        nodes: dict[Place, _Node] = {}
        for place in self._slots.masters:
            nodes[place] = self._nodes.get(place) or _Node(self.address.at(place), self._connect_timeout)
        lost = [node for place, node in self._nodes.items() if place not in nodes]
        self._nodes = nodes
        # A slot that nobody serves is asked of any node: it says that the cluster is down.
        anybody = next(iter(nodes.values()))
        self._owners = [nodes[place] if place else anybody for place in self._slots.owners]
        for node in lost:
            node.connection.close()

    async def exchange(self, commands: Sequence[bytes], seconds: float) -> list[Reply]:
        """`ask`, with the replies as Python objects: None in the place of each that is missing."""
        return (await self.ask(commands, seconds)).objects()

    async def ask(self, commands: Sequence[bytes], seconds: float) -> Replies:
        """The replies to all `commands`, with gaps for those that did not arrive within `seconds`.

        Raises `RedisUnavailable` when no node can be asked at all.
        """
        loop = asyncio.get_running_loop()
        until = loop.time() + seconds
        if not self._owners:
            try:
                async with asyncio.timeout(seconds):
                    await self.open()
            except TimeoutError:
                raise RedisUnavailable("connecting takes longer than the deadline") from None
        shares: dict[_Node, list[int]] = {}
        for place, command in enumerate(commands):
            shares.setdefault(self._owners[slot(key_of(command))], []).append(place)
        answers = await asyncio.gather(
            *(node.ask([commands[place] for place in mine], until - loop.time())
              for node, mine in shares.items())
        )  # fmt: skip
        replies = [b""] * len(commands)
        whole, anything = True, False
        moved: dict[int, str] = {}  # places, and the hosts that sent them elsewhere
        for (node, mine), answer in zip(shares.items(), answers, strict=True):
            whole = whole and len(answer) == len(mine)
            anything = anything or bool(answer)
            for number, place in enumerate(mine[: len(answer)]):
                replies[place] = answer.raw(number)
                if replies[place].startswith((b"-MOVED ", b"-ASK ")):
                    moved[place] = node.connection.address.nodes[0][0]
        if moved:
            self._map_soon()
            await self._follow(commands, replies, moved, until)
        if not whole:
            self._map_soon()
            if not anything:
                raise RedisUnavailable("no node of the cluster answers")
        return Replies.of(replies, gaps=not whole)

    async def _follow(
        self, commands: Sequence[bytes], replies: list[bytes], moved: Mapping[int, str], until: float
    ) -> None:
        """Ask redirected commands where they were sent to, once."""
        loop = asyncio.get_running_loop()
        shares: dict[Place, list[int]] = {}
        for place, asked in moved.items():
            where = redirected_to(replies[place].decode(), asked)
            shares.setdefault(where, []).append(place)

        async def ask(where: Place, mine: Sequence[int]) -> None:
            node = self._nodes.get(where)
            if node is None:
                node = self._nodes[where] = _Node(self.address.at(where), self._connect_timeout)
            packed: list[bytes] = []
            for place in mine:
                packed += (_ASKING, commands[place])
            answer = await node.ask(packed, until - loop.time())
            for number, place in enumerate(mine[: len(answer) // 2]):
                replies[place] = answer.raw(2 * number + 1)

        await asyncio.gather(*(ask(where, mine) for where, mine in shares.items()))

    def send(self, commands: Sequence[bytes]) -> Exchange:
        """Write `commands` without waiting; raise `RedisUnavailable` without a connection."""
        if not self.connected:
            raise RedisUnavailable("not connected")
        loop = asyncio.get_running_loop()
        exchange = Exchange(len(commands), loop.create_future(), loop.time())

        async def write() -> None:
            try:
                exchange.found(await self.ask(commands, _PATIENCE))
            except RedisUnavailable as error:
                exchange.future.set_exception(error)

        task = asyncio.create_task(write())
        self._writes.add(task)
        task.add_done_callback(self._writes.discard)
        return exchange

    async def everywhere(self, command: bytes, seconds: float) -> None:
        """Have every master run a packed `command` that names no key, behind all writes."""
        if self._writes:
            await asyncio.wait(set(self._writes), timeout=seconds)
        await asyncio.gather(*(node.ask([command], seconds) for node in self._nodes.values()))

    def close(self) -> None:
        for node in self._nodes.values():
            node.connection.close()
