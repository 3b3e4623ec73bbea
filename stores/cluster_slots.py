"""Which master of a Redis Cluster owns each hash slot: what `CLUSTER SLOTS` told, and redirections since.

No connection: whoever asks a node brings its answer here (the service with its own connections, the
stream with redis-py's).
"""

from __future__ import annotations

import binascii
from collections.abc import Iterable, Sequence
from typing import Any, Final

from stores.redis_url import Place

SLOTS: Final = 16384
#: Nodes that are remembered, to ask for the slots: those of a large cluster, not all that ever were.
_MOST_NODES: Final = 1_000


def slot(key: bytes) -> int:
    """The hash slot of a key: of what stands in its first non-empty braces, if there are any."""
    start = key.find(b"{")
    if start >= 0:
        end = key.find(b"}", start + 1)
        if end > start + 1:
            key = key[start + 1 : end]
    return binascii.crc_hqx(key, 0) % SLOTS


def redirected_to(error: str, asked: str) -> Place:
    """The server that a redirection names (`MOVED 3999 host:port`, `ASK 3999 host:port`).

    Without a host it is `asked`, the host that answered.
    """
    host, _, port = error.split()[2].rpartition(":")
    return host or asked, int(port)


class SlotMap:
    """The owners of all slots; unknown until `take`. `seeds` are nodes to ask first."""

    def __init__(self, seeds: Sequence[Place]) -> None:
        self._nodes = list(seeds)
        self.owners: list[Place | None] = []
        #: In the order of their first slots.
        self.masters: dict[Place, None] = {}

    @property
    def known(self) -> bool:
        return bool(self.owners)

    @property
    def nodes(self) -> list[Place]:
        """Whom to ask for the slots: who has told them last, then every node that was ever named."""
        return list(self._nodes)

    def take(self, ranges: Iterable[Sequence[Any]], asked: Place) -> None:
        """Take what `asked` said: (first, last, [host, port, ...] of the master, of each replica)."""
        owners: list[Place | None] = [None] * SLOTS
        masters: dict[Place, None] = {}
        nodes = {asked: None}
        for first, last, *servers in ranges:
            # A node that does not know its own address leaves the host out: it is where it was asked.
            places = [((server[0] or b"").decode() or asked[0], int(server[1])) for server in servers]
            masters[places[0]] = None
            owners[first : last + 1] = [places[0]] * (last + 1 - first)
            nodes.update(dict.fromkeys(places))
        self.owners, self.masters = owners, masters
        self._nodes = list(nodes | dict.fromkeys(self._nodes))[:_MOST_NODES]

    def move(self, moved: int, place: Place) -> None:
        """A redirection has named the new owner of a slot."""
        self.owners[moved] = place

    def forget(self) -> None:
        """Doubt the slots; whom to ask for them stays known."""
        self.owners = []
