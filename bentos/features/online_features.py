"""Online features: Feast's rows for a whole batch of transactions in one Redis round trip.

A plan says which hash fields each entity's key is asked for; it is resolved once (from the
feature tables, or from Feast's registry by `bentos.features.feature_plan`). A batch is then one HMGET per
entity that each transaction names, all in one pipelined write: for the profile's numbers side by side, their
timestamp, and the state, whose timestamp is in it. A profile that was written without its numbers side by
side, by another program than `feature_repo.online_store`, is read value by value in a second round trip. A
batch is decoded at once by compiled code (`bentos.features.row_loops`). Freshness is judged by each view's
timestamp against *when the transaction was known*, which in a replay is its event time; a value past
its ttl is served as null, exactly as a point-in-time join would.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from bentos.features.declared_rows import DeclaredPart
from bentos.features.row_loops import AGAIN, Floats, Layout, Rows, fill_profile, fill_rows
from bentos.wire.redis_connection import pack
from bentos.wire.replies import Ints, Replies
from fraud.contract.answer import FeatureStatus
from fraud.contract.transaction import Transaction
from fraud.features.entities import ENTITIES, PROFILE_TTL, VELOCITY_TTL
from fraud.features.feature_list import PROFILE_INPUTS
from fraud.features.profiles import SERVED_PROFILES
from fraud.state.last_seen import NEVER
from fraud.state.windows import joined, split
from stores.redis_layout import entity_key, field, row_field, ts_field

#: In words, the codes of `bentos.features.row_loops`.
_STATUS_WORDS: Final[tuple[FeatureStatus, ...]] = ("fresh", "missing", "stale", "timeout", "timeout")


@dataclass(frozen=True, slots=True)
class ViewPlan:
    """One Feast view: its name, its features in order, and how old (microseconds) it may be."""

    name: str
    features: tuple[str, ...]
    ttl_us: int


@dataclass(frozen=True, slots=True)
class EntityPlan:
    """What one entity's hash is asked for. `velocity` holds exactly one feature, the state."""

    name: str
    key: str
    profile: ViewPlan
    velocity: ViewPlan


@dataclass(frozen=True, slots=True)
class FeaturePlan:
    """A FeatureService as Redis keys and fields: one `EntityPlan` per entity, in ENTITIES order."""

    project: str
    entities: tuple[EntityPlan, ...]


def table_plan(project: str) -> FeaturePlan:
    """The plan that the feature tables define; the registry's must be equal to it."""
    profile_ttl = int(PROFILE_TTL.total_seconds()) * 1_000_000
    velocity_ttl = int(VELOCITY_TTL.total_seconds()) * 1_000_000
    entities = []
    for entity in ENTITIES:
        names = SERVED_PROFILES[entity.name]
        entities.append(
            EntityPlan(
                name=entity.name,
                key=entity.key,
                profile=ViewPlan(entity.profile_view, names, profile_ttl),
                velocity=ViewPlan(entity.velocity_view, (entity.state_feature,), velocity_ttl),
            )
        )
    return FeaturePlan(project, tuple(entities))


@dataclass(slots=True)
class OnlineRows:
    """What a batch read brought, one row per transaction.

    The packed state of the entity at place p (in ENTITIES) of row r is
    `words[ends[i] : ends[i + 1]]` with i = p * rows + r, without a word where there is none to use;
    `profiles` is rows x profile features in the vector's order, NaN where null, and
    `inputs` those of its columns that request-time features read. `status` and `timestamps`
    (microseconds since 1970 UTC, as stored) are per row and view, by view name; rows may share a status.
    What is known by `known_us` has been seen: no state read is newer. `own` is what own features are made
    of, where any are declared. `unanswered` counts the reads that got no reply, or none that can be used.
    `again` are the rows and places of profiles to be read value by value; they count as timed out until
    then.
    """

    words: Ints
    ends: Ints
    profiles: Floats
    inputs: Floats
    status: list[dict[str, FeatureStatus]]
    timestamps: list[dict[str, int]]
    known_us: list[int]
    unanswered: int = 0
    again: Sequence[tuple[int, int]] = ()
    own: DeclaredPart | None = None

    @property
    def states(self) -> list[list[bytes | None]]:
        """Per entity the packed state of each row, None where there is none to use."""
        flat = split(self.words, self.ends)
        rows = len(self.status)
        return [flat[first : first + rows] for first in range(0, len(flat), rows)]

    def add(self, own: DeclaredPart) -> None:
        """Take up what own features are made of, and their views' status and timestamps."""
        self.own = own
        both = zip(self.status, own.status, strict=True)
        self.status = [dict(sorted((standard | more).items())) for standard, more in both]
        moments = zip(self.timestamps, own.timestamps, strict=True)
        self.timestamps = [dict(sorted((standard | more).items())) for standard, more in moments]

    def take(self, rows: Sequence[int]) -> OnlineRows:
        """Only these rows."""
        chosen = list(rows)
        words, ends = joined([column[row] for column in self.states for row in chosen])
        return OnlineRows(
            words,
            ends,
            self.profiles[chosen],
            self.inputs[chosen],
            [self.status[row] for row in chosen],
            [self.timestamps[row] for row in chosen],
            [self.known_us[row] for row in chosen],
            self.unanswered,
            own=None if self.own is None else self.own.take(chosen),
        )


class _EntityReader:
    """Requests and replies of one entity."""

    __slots__ = (
        "_each",
        "_head",
        "_key_fixed",
        "_prefix",
        "_suffix",
        "_tail",
        "features",
        "key",
    )

    def __init__(self, project: str, plan: EntityPlan) -> None:
        self.key = plan.key
        self.features = plan.profile.features
        view, velocity = plan.profile.name, plan.velocity.name
        names = [
            row_field(view, self.features), ts_field(view), field(velocity, plan.velocity.features[0]),
        ]  # fmt: skip
        self._each = [*(field(view, feature) for feature in self.features), ts_field(view)]
        # An entity key is: prefix, length of the value, the value, the project.
        empty = entity_key(project, plan.key, "")
        self._tail = project.encode()
        self._prefix = empty[: len(empty) - len(self._tail) - 4]
        self._key_fixed = len(empty)
        self._head = b"*%d\r\n$5\r\nHMGET\r\n$" % (2 + len(names))
        self._suffix = self._tail + b"\r\n" + b"".join(b"$%d\r\n%b\r\n" % (len(name), name) for name in names)

    def command(self, value: str) -> bytes:
        """The packed HMGET for the entity value `value`."""
        text = value.encode()
        size = len(text)
        return b"%b%d\r\n%b%b%b%b" % (
            self._head, self._key_fixed + size, self._prefix, size.to_bytes(4, "little"), text, self._suffix,
        )  # fmt: skip

    def profile_command(self, value: str) -> bytes:
        """The packed HMGET of the profile value by value, and its timestamp."""
        return pack(b"HMGET", self.redis_key(value), *self._each)

    def redis_key(self, value: str) -> bytes:
        text = value.encode()
        return self._prefix + len(text).to_bytes(4, "little") + text + self._tail


class OnlineFeatures:
    """Builds the commands of a batch and turns their replies into rows."""

    def __init__(self, plan: FeaturePlan) -> None:
        self.plan = plan
        self._readers = [_EntityReader(plan.project, entity) for entity in plan.entities]
        names = [name for reader in self._readers for name in reader.features]
        views = [view for entity in plan.entities for view in (entity.profile, entity.velocity)]
        self.views = tuple(view.name for view in views if view.features)
        self._profiles = len(names)
        self._inputs = np.array([names.index(name) for name in PROFILE_INPUTS])
        self._widths = np.array([len(reader.features) for reader in self._readers])
        self._ttl_us = np.array([view.ttl_us for view in views])
        self._keys = tuple(reader.key for reader in self._readers)
        #: Views have their columns in order of name, as the decision log keeps them.
        self._names = tuple(sorted(view.name for view in views))
        self._columns = np.array([self._names.index(view.name) for view in views])
        self._layout = Layout(self._widths, self._ttl_us, self._columns, self._inputs)
        self._status_of: dict[bytes, dict[str, FeatureStatus]] = {}

    def commands(self, transactions: Sequence[Transaction]) -> list[bytes]:
        """One packed HMGET per transaction and entity it names: by transaction, then by entity."""
        packed = []
        for transaction in transactions:
            for reader in self._readers:
                value = getattr(transaction, reader.key)
                if value is not None:
                    packed.append(reader.command(value))
        return packed

    def keys(self, transactions: Sequence[Transaction]) -> list[bytes]:
        """The Redis key of each of `commands`, in the same order (a cluster routes by them)."""
        return [
            reader.redis_key(value)
            for transaction in transactions
            for reader in self._readers
            if (value := getattr(transaction, reader.key)) is not None
        ]

    def rows(
        self, transactions: Sequence[Transaction], known_us: Sequence[int], replies: Replies, first: int = 0
    ) -> OnlineRows:
        """Rows from the replies that arrived in time, those to `commands` from `first` on.

        `known_us` is when each transaction was known, microseconds UTC; it is later in the rows where a
        state is newer. A reply that is an error counts as timed out: the feature store could not answer
        for it.
        """
        count, views = len(transactions), len(self._names)
        named = bytes(
            [getattr(transaction, key) is not None for transaction in transactions for key in self._keys]
        )
        profiles = np.empty((count, self._profiles))
        inputs = np.empty((count, len(self._inputs)))
        words = np.empty(len(replies.data) >> 3, dtype=np.int64)
        ends = np.empty(len(named) + 1, dtype=np.int64)
        codes = np.empty((count, views), dtype=np.uint8)
        moments = np.empty((count, views), dtype=np.int64)
        known = np.array(known_us, dtype=np.int64)
        unanswered = fill_rows(
            np.frombuffer(replies.data, np.uint8), replies.begins, first,
            np.frombuffer(named, np.uint8).reshape(count, len(self._keys)),
            self._layout, Rows(profiles, inputs, words, ends, codes, moments, known),
        )  # fmt: skip
        again: list[tuple[int, int]] = []
        if AGAIN in (cases := codes.tobytes()):
            places = np.argwhere(codes.take(self._columns[::2], axis=1) == AGAIN)
            again = [(row, place) for row, place in places.tolist()]
        return OnlineRows(
            words,
            ends,
            profiles,
            inputs,
            [self._status(cases[at : at + views]) for at in range(0, len(cases), views)],
            [self._timestamps(row) for row in moments.tolist()],
            known.tolist(),
            unanswered,
            again,
        )

    def profile_commands(self, transactions: Sequence[Transaction], online: OnlineRows) -> list[bytes]:
        """A packed HMGET for each profile of `online` that has to be read again."""
        commands = []
        for row, place in online.again:
            reader = self._readers[place]
            commands.append(reader.profile_command(getattr(transactions[row], reader.key)))
        return commands

    def complete(self, online: OnlineRows, replies: Replies) -> None:
        """Put the replies to `profile_commands` where they belong."""
        data = np.frombuffer(replies.data, np.uint8)
        for reply, (row, place) in enumerate(online.again):
            view, width = self.plan.entities[place].profile, self._widths[place]
            first = int(self._widths[:place].sum())
            values = np.empty(width)
            answered, moment = fill_profile(data, replies.begins, reply, values)
            if not answered:
                online.unanswered += reply < len(replies)
                continue
            found: FeatureStatus = "fresh"
            if moment == NEVER:
                found = "missing"
                del online.timestamps[row][view.name]
            else:
                online.timestamps[row][view.name] = moment
                if online.known_us[row] - moment > view.ttl_us:
                    found = "stale"
            if found == "fresh":
                online.profiles[row, first : first + width] = values
                online.inputs[row] = online.profiles[row, self._inputs]
            online.status[row] = online.status[row] | {view.name: found}

    def _status(self, case: bytes) -> dict[str, FeatureStatus]:
        """The views' status from their codes; rows in the same case share it."""
        found = self._status_of.get(case)
        if found is None:
            if len(self._status_of) == _MOST_CASES:
                self._status_of.clear()
            words = [_STATUS_WORDS[code] for code in case]
            found = self._status_of[case] = dict(zip(self._names, words, strict=True))
        return found

    def _timestamps(self, moments: list[int]) -> dict[str, int]:
        found = dict(zip(self._names, moments, strict=True))
        if NEVER in moments:
            return {name: moment for name, moment in found.items() if moment != NEVER}
        return found


#: Cases of status that are kept, of all that there could be.
_MOST_CASES: Final = 4096
