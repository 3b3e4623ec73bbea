"""Kafka as every part of the platform meets it: its client's properties, and who belongs in which partition.

Any property of the client (librdkafka) is a setting: `TOLLGATE_KAFKA_SASL_MECHANISM=SCRAM-SHA-512` is
`sasl.mechanism`. With `_FILE` behind the name the value stands in a file, such as a mounted secret, which is
read anew whenever a client is made.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any, Final, Protocol, TypeVar

PREFIX: Final = "TOLLGATE_KAFKA_"
_PROPERTIES: Final = PREFIX + "PROPERTIES"
_FILE: Final = "_FILE"
#: Marks a property whose value stands in a file.
_FROM: Final = "@file:"
#: What the platform's promises rest on: reading from snapshots, and no event lost or doubled by a retry.
_OURS: Final = frozenset({
    "bootstrap.servers", "group.id", "enable.auto.commit", "enable.auto.offset.store", "auto.offset.reset",
    "enable.idempotence", "enable.partition.eof", "partitioner",
})  # fmt: skip


Client = TypeVar("Client")


class KafkaError(ValueError):
    """A property that cannot be used; the text names its variable."""


class _Configured(Protocol):
    @property
    def bootstrap(self) -> str: ...
    @property
    def properties(self) -> dict[str, str]: ...


def with_properties(given: Mapping[str, str], known: Collection[str]) -> dict[str, str]:
    """`given` variables, with those of the client's properties gathered into one."""
    own = {name: value for name, value in given.items() if name.startswith(PREFIX) and name not in known}
    if not own:
        return dict(given)
    found: dict[str, str] = {}
    for name, value in own.items():
        plain = name.removeprefix(PREFIX)
        in_file = plain.endswith(_FILE)
        found[plain.removesuffix(_FILE).lower().replace("_", ".")] = _FROM + value if in_file else value
    kept = {name: value for name, value in given.items() if name not in own}
    if _PROPERTIES in kept:
        try:
            found = json.loads(kept[_PROPERTIES]) | found
        except (ValueError, TypeError):
            return kept  # the setting's own validation says what is wrong with it
    return kept | {_PROPERTIES: json.dumps(found)}


def client_config(configured: _Configured, **own: Any) -> dict[str, Any]:
    """Properties of a client: `own` ones (with `_` for `.`), and what the settings say over them.

    Raises `KafkaError` for a property that is the platform's own business and for a file that cannot be read.
    """
    ours = {name.replace("_", "."): value for name, value in own.items()}
    given = {}
    for name, value in configured.properties.items():
        if name in _OURS:
            raise KafkaError(f"{variable_of(name)}: {name} is set by the platform, which relies on it")
        given[name] = _read(name, value) if value.startswith(_FROM) else value
    return {"bootstrap.servers": configured.bootstrap, **ours, **given}


def opened(kind: Callable[[dict[str, Any]], Client], config: dict[str, Any]) -> Client:
    """A client of this kind (`Consumer`, `Producer`); `KafkaError` names a variable that it does not take."""
    from confluent_kafka import KafkaException

    try:
        return kind(config)
    except KafkaException as error:
        text = error.args[0].str() if hasattr(error.args[0], "str") else str(error)
        name = next((name for name in config if f'"{name}"' in text), None)
        raise KafkaError(text if name is None else f"{variable_of(name)}: {text}") from None


def variable_of(name: str) -> str:
    """The variable that sets a property."""
    return PREFIX + name.upper().replace(".", "_")


def _read(name: str, value: str) -> str:
    path = Path(value.removeprefix(_FROM))
    try:
        return path.read_text().rstrip("\r\n")
    except (OSError, UnicodeDecodeError) as error:
        raise KafkaError(
            f"{variable_of(name)}{_FILE}: {path} cannot be read: {type(error).__name__}"
        ) from None


def _murmur2(data: bytes) -> int:
    """MurmurHash2 (32 bits) as Kafka's own producers compute it."""
    mask, factor = 0xFFFFFFFF, 0x5BD1E995
    length = len(data)
    value = 0x9747B28C ^ length
    for at in range(0, length & ~3, 4):
        word = int.from_bytes(data[at : at + 4], "little") * factor & mask
        word = (word ^ word >> 24) * factor & mask
        value = value * factor & mask ^ word
    rest = data[length & ~3 :]
    if rest:
        value = (value ^ int.from_bytes(rest, "little")) * factor & mask
    value = (value ^ value >> 13) * factor & mask
    return value ^ value >> 15


@lru_cache(maxsize=1 << 18)
def keyed_hash(key: str) -> int:
    """What decides the partition of a record with this key, before the remainder: `murmur2` without its sign,
    as Kafka's default partitioner (Java), and `partitioner=murmur2_random` of librdkafka, have it."""
    return _murmur2(key.encode()) & 0x7FFFFFFF
