"""What the platform's own views declare, and every batch view: each feature a figure, as plain data.

A figure is one feature: a named function, of a column or of other features, over a window. Feast's objects
declare them (`feature_repo.standard`, or a team's files); this is the same as rooms without Feast read it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Final

import msgspec
from msgspec import Struct


class Figure(Struct, frozen=True, omit_defaults=True):
    """One feature: `function` over the `window_ms` milliseconds before a time, of `columns`.

    `columns` are columns of the event, or, of a feature that is made at the request, features of views;
    `categorical` ones are codes of categories.
    """

    name: str
    function: str
    columns: tuple[str, ...] = ()
    window_ms: int = 0
    meaning: str = ""
    categorical: bool = False

    @property
    def column(self) -> str:
        """The first of the columns, "" where there is none."""
        return self.columns[0] if self.columns else ""


class BatchView(Struct, frozen=True, omit_defaults=True):
    """Aggregates of one entity that Spark computes at every cut, from transactions and labels known by then.

    `key` is the field of the event, or the attribute, that names the entity; `folder` is where the view's
    rows lie below the lake's `profiles`.
    """

    name: str
    entity: str
    key: str
    folder: str
    figures: tuple[Figure, ...]


class VelocityView(Struct, frozen=True, omit_defaults=True):
    """Figures of one standard entity that are read from its packed state at the time of a transaction."""

    entity: str
    figures: tuple[Figure, ...]


class Standard(Struct, frozen=True, omit_defaults=True):
    """The platform's own features: batch views, velocity views, features made at the request, and the names
    that its service serves, in order."""

    batches: tuple[BatchView, ...]
    velocities: tuple[VelocityView, ...]
    requests: tuple[Figure, ...]
    service: tuple[str, ...]


_encode: Final = msgspec.json.Encoder(order="deterministic").encode
_decode: Final = msgspec.json.Decoder(Standard).decode


def encode_standard(standard: Standard) -> bytes:
    """Canonical JSON."""
    return _encode(standard)


def decode_standard(data: bytes) -> Standard:
    """What `encode_standard` wrote; raises msgspec.ValidationError for anything else."""
    return _decode(data)


def digest_of(view: BatchView, measures: Mapping[str, str]) -> str:
    """Identifies what a batch view computes: its figures without their words, and the measures they use."""
    meant = [(each.name, each.function, each.columns, each.window_ms) for each in view.figures]
    used = {column: measures.get(column, "") for each in view.figures for column in each.columns}
    return hashlib.sha256(_encode([view.key, sorted(meant), sorted(used.items())])).hexdigest()[:16]
