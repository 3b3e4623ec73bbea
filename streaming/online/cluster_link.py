"""Raw connections to the masters of a Redis Cluster, for many commands on single keys at once.

redis-py's own pipeline asks the cluster for the keys of every script call, one round trip each, and
always the same node: once that one is dead, no call goes through any more. And it hides that a
server was replaced, whose successor may lack the last writes. Here a lost connection, and a key
that has gone to a server which was no master before, is an error to the caller, and the next call
learns the slots anew.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import hiredis
import redis
from redis.exceptions import AskError, ClusterDownError, MovedError, ResponseError

from stores.cluster_slots import SlotMap, slot
from stores.redis_clients import AWAY, TIMEOUT_S, connect
from stores.redis_url import Place, parse_redis_url

#: Seconds for a question about the slots: others can answer it.
_PATIENCE_S: Final = 1.0
#: Redirections that one command follows; a slot on its way from one master to another takes one.
_MOST_HOPS: Final = 4
_ASKING: Final[bytes] = hiredis.pack_command(("ASKING",))

Command = tuple[bytes, bytes]  # its key, and itself packed


class ClusterLink:
    """The cluster behind `redis+cluster://` or `rediss+cluster://` `url`; connects when it is used."""

    def __init__(self, url: str) -> None:
        self._address = parse_redis_url(url)
        self._slots = SlotMap(self._address.nodes)
        self._connections: dict[Place, Any] = {}

    def call(self, commands: Sequence[Command]) -> list[Any]:
        """The replies, errors among them; raise one of `AWAY` when some server cannot answer.

        Then any of the commands may have been done, or none.
        """
        replies: list[Any] = [None] * len(commands)
        try:
            if not self._slots.known:
                self._learn()
            shares: dict[Place, list[int]] = {}
            for at, (key, _) in enumerate(commands):
                shares.setdefault(self._owner(slot(key)), []).append(at)
            self._exchange(shares, commands, replies)
            self._follow(commands, replies)
        except AWAY:
            self.disconnect()
            raise
        return replies

    def disconnect(self) -> None:
        """Drop every connection and what was not answered, and doubt the slots."""
        for connection in self._connections.values():
            connection.disconnect()
        self._connections.clear()
        self._slots.forget()

    def _owner(self, owned: int) -> Place:
        place = self._slots.owners[owned]
        if place is None:
            raise ClusterDownError(f"slot {owned} has no master")
        return place

    def _connection(self, place: Place) -> Any:
        connection = self._connections.get(place)
        if connection is None:
            connection = self._connections[place] = self._connect(place, TIMEOUT_S)
        return connection

    def _connect(self, place: Place, timeout: float) -> Any:
        return connect(self._address.at(place), timeout=timeout).connection_pool.get_connection()

    def _exchange(
        self, shares: dict[Place, list[int]], commands: Sequence[Command], replies: list[Any]
    ) -> None:
        """Send to all servers, then read from each."""
        for place, mine in shares.items():
            self._connection(place).send_packed_command([commands[at][1] for at in mine])
        for place, mine in shares.items():
            connection = self._connections[place]
            for at in mine:
                replies[at] = _reply(connection)

    def _follow(self, commands: Sequence[Command], replies: list[Any]) -> None:
        """Ask again where the servers point to, and raise what says that one is away."""
        refused = [at for at, reply in enumerate(replies) if isinstance(reply, ResponseError)]
        for _ in range(_MOST_HOPS):
            moved: dict[Place, list[int]] = {}
            for at in refused:
                reply = replies[at]
                if isinstance(reply, MovedError) and (reply.host, reply.port) in self._slots.masters:
                    self._slots.move(reply.slot_id, (reply.host, reply.port))
                    moved.setdefault((reply.host, reply.port), []).append(at)
                elif isinstance(reply, AskError) and not isinstance(reply, MovedError):
                    replies[at] = self._ask((reply.host, reply.port), commands[at][1])
                elif isinstance(reply, AWAY):
                    raise reply
            self._exchange(moved, commands, replies)
            refused = [at for at in refused if isinstance(replies[at], ResponseError)]
            if not any(isinstance(replies[at], AWAY) for at in refused):
                return
        raise ClusterDownError("the cluster sends a command from server to server")

    def _ask(self, place: Place, command: bytes) -> Any:
        """The reply of the server to which the key's slot is on its way."""
        connection = self._connection(place)
        connection.send_packed_command([_ASKING, command])
        _reply(connection)
        return _reply(connection)

    def _learn(self) -> None:
        """Take the slots from the first node that tells them."""
        for place in self._slots.nodes:
            try:
                connection = self._connect(place, _PATIENCE_S)
            except AWAY:
                continue
            try:
                connection.send_command("CLUSTER", "SLOTS")
                ranges = connection.read_response()
            except AWAY:
                continue
            finally:
                connection.disconnect()
            if ranges:
                self._slots.take(ranges, place)
                return
        raise redis.ConnectionError("no node of the cluster tells its slots")


def _reply(connection: Any) -> Any:
    try:
        return connection.read_response()
    except ResponseError as error:
        return error
