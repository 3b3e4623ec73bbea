"""Who asks, and what their transaction ids are called inside."""

from __future__ import annotations

from typing import Final, NamedTuple

from bentos.base.problem import Problem

#: Between the name of an id space and a client's own id. No name of a space holds it.
SEPARATOR: Final = ":"
#: Characters of a client's own id.
LONGEST_ID: Final = 64


class Caller(NamedTuple):
    """A client that was let in. Its transaction ids are its own: inside, and in the log, the lake and the
    event log, they stand behind the name of its id space (`ids`), so that two clients' equal ids are two
    transactions. Clients with the same `ids` share one; without any (the mode without tokens, where
    there is one client) ids stand as they came. What a client sends that `replays` is of the past, and
    the event times that it states count.
    """

    name: str
    ids: str = ""
    replays: bool = False

    def inside(self, own: str) -> str:
        """What the client's id `own` is called inside; raise `Problem` for one that is too long."""
        if len(own) > LONGEST_ID:
            raise Problem(422, "transaction_id", f"should be a string of 1 to {LONGEST_ID} characters")
        return f"{self.ids}{SEPARATOR}{own}" if self.ids else own


#: The one caller where no tokens are.
LOCAL: Final = Caller("loopback")
