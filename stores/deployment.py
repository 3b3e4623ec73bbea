"""Which models are in service: `<home>/deployment.json`, its one schema, reader and writer.

    {"champion": "<version>", "challenger": "<version>" or null, "share": 0.1,
     "shadow": ["<version>"], "key": "customer_id", "experiment": "<name>"}

`share` of keys is what the challenger decides, `experiment` the salt of that split. Promotion
writes it, the service watches it, drift and the status page read it. A name that is none of these
is refused: one that a writer spells otherwise would be silently something else. Every change is
kept in `<home>/deployment-history.jsonl`. Of several hosts the state database decides (`stores.state`), and
both files are copies of what it says.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import msgspec

from stores.files import write_whole
from stores.models import newest_version

FILE: Final = "deployment.json"
HISTORY: Final = "deployment-history.jsonl"
#: Share of keys that a challenger decides, unless told otherwise.
DEFAULT_SHARE: Final = 0.1
#: Bytes of deployment.json, and models beside the champion, at most.
_LARGEST: Final = 64_000
_MOST_SHADOWS: Final = 16


class DeploymentError(ValueError):
    """A deployment that cannot be used; the text says why."""


class Deployment(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Who decides, and who scores beside; without a champion the store's newest model is."""

    champion: str | None = None
    challenger: str | None = None
    share: float = DEFAULT_SHARE
    key: str = "customer_id"
    experiment: str = "default"
    shadow: tuple[str, ...] = ()


class Change(msgspec.Struct, frozen=True):
    """One line of the history: which step brought which version where, what the gates said, who did it and
    why."""

    at: str
    step: str
    version: str
    forced: bool
    gates: list[dict[str, Any]]
    before: Deployment
    after: Deployment
    by: str = ""
    why: str = ""


_decode: Final = msgspec.json.Decoder(Deployment).decode
_decode_change: Final = msgspec.json.Decoder(Change).decode


def read_deployment(home: Path) -> Deployment:
    """The deployment as it was written, an empty one if nothing was. Raises `DeploymentError`."""
    try:
        with (home / FILE).open("rb") as file:
            text = file.read(_LARGEST + 1)
        if len(text) > _LARGEST:
            raise DeploymentError(f"{FILE}: is larger than {_LARGEST} bytes")
        deployment = _decode(text)
    except FileNotFoundError:
        return Deployment()
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, OSError) as error:
        raise DeploymentError(f"{FILE}: {str(error)[:200]}") from None
    if len(deployment.shadow) > _MOST_SHADOWS:
        raise DeploymentError(f"{FILE}: names more than {_MOST_SHADOWS} shadows")
    return deployment


def in_service(home: Path) -> Deployment | None:
    """What should decide: the deployment, or the newest model alone; None when the store is empty."""
    deployment = read_deployment(home)
    if deployment.champion is not None:
        return deployment
    version = newest_version(home)
    return Deployment(version) if version is not None else None


def write_deployment(
    home: Path, after: Deployment, *, step: str, version: str, gates: list[dict[str, Any]], by: str = "",
    why: str = "",
) -> None:  # fmt: skip
    """Replace the deployment as a whole, so that a reader never sees half a change, and keep the change."""
    before = read_deployment(home)
    forced = any(not check["passed"] for check in gates)
    at = datetime.now(UTC).isoformat(timespec="seconds")
    change = Change(at, step, version, forced, gates, before, after, by, why)
    home.mkdir(parents=True, exist_ok=True)
    # History first: a crash between the two leaves a recorded step that did not happen, never
    # a change that nobody recorded.
    with (home / HISTORY).open("ab") as history:
        history.write(msgspec.json.encode(change) + b"\n")
    write_copy(home, after)


def write_copy(home: Path, deployment: Deployment) -> None:
    """Put out what is in force according to the state database, for this host's readers."""
    home.mkdir(parents=True, exist_ok=True)
    write_whole(home / FILE, msgspec.json.format(msgspec.json.encode(deployment)), durable=True)


def keep_history(home: Path, history: Sequence[Change]) -> None:
    """Put out every change that the state database holds, oldest first."""
    home.mkdir(parents=True, exist_ok=True)
    write_whole(home / HISTORY, b"".join(msgspec.json.encode(change) + b"\n" for change in history))


def read_history(home: Path) -> list[Change]:
    """Every change, oldest first."""
    path = home / HISTORY
    return [_decode_change(line) for line in path.read_bytes().splitlines()] if path.is_file() else []
