"""What a training set was made of, so that it can be judged and made again."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from datetime import UTC, date, datetime, timedelta
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

import fraud
from fraud.contract.money import rates_digest
from fraud.features.entities import FEATURE_SERVICE, PROFILE_DAYS, PROFILE_TTL, VELOCITY_TTL, WINDOWS
from fraud.features.feature_list import VECTOR
from stores.declared import declared
from stores.lake_files import parquet_files
from stores.settings import settings

#: Raised when the folder's layout changes.
FORMAT: Final = 1
#: The code that decides what a feature is: modules of the core whose names begin so.
_CODE: Final = ("entities", "feature", "money", "observation", "on_demand", "profile", "velocity", "window")
_TAIL: Final = 4096


@dataclass(frozen=True, slots=True)
class Sampling:
    """How genuine rows were thinned: about `negatives`, a share of `keep`, chosen by `seed`."""

    negatives: int | None
    keep: float
    seed: int


def definitions_hash() -> str:
    """A digest of the feature definitions: the tables and functions of the core."""
    digest = hashlib.sha256()
    for path in sorted(Path(str(fraud.__file__)).parent.rglob("*.py")):
        if path.stem.startswith(_CODE):
            digest.update(f"{path.stem} ".encode() + path.read_bytes())
    return digest.hexdigest()


def snapshot(start: datetime, end: datetime, as_of: datetime) -> dict[str, Any]:
    """A digest of every source file that can matter: names, sizes and parquet footers.

    Features of the first row look back one ttl; labels count up to `as_of`.
    """
    lake = settings().lake
    spans = {
        "transactions": (start, end),
        "labels": (datetime.min.replace(tzinfo=UTC), as_of),
        "velocity": (start - VELOCITY_TTL, end),
        "profiles": (start - PROFILE_TTL, end),
    }
    digest, files = hashlib.sha256(), 0
    for kind, (low, high) in spans.items():
        first, last = low.astimezone(UTC).date() if low.year > 1 else date.min, high.astimezone(UTC).date()
        for path in parquet_files(lake / kind):
            if first <= _day(path) <= last:
                size = path.stat().st_size
                with path.open("rb") as file:
                    file.seek(max(0, size - _TAIL))
                    digest.update(f"{path.relative_to(lake)} {size} ".encode() + file.read())
                files += 1
    return {"files": files, "digest": digest.hexdigest()}


def _day(path: Path) -> date:
    """The date in the name of a file's folder, ``date=YYYY-MM-DD`` or ``cut=YYYYMMDDTHHMMSS``."""
    value = path.parent.name.partition("=")[2]
    return date.fromisoformat(value[:8] if "T" in value else value)


def describe_inputs(
    start: datetime, end: datetime, as_of: datetime, sampling: Sampling, service: str = FEATURE_SERVICE
) -> dict[str, Any]:
    """Everything the set depends on; equal inputs give equal bytes."""
    times = {"from": start, "to": end, "as_of": as_of}
    return {
        "format": FORMAT,
        **{name: at.astimezone(UTC).isoformat() for name, at in times.items()},
        "feature_service": service,
        "definitions": definitions_hash(),
        "declared": declared().digest,
        "reference_rates": rates_digest(),
        "windows": {
            "velocity": [window.name for window in WINDOWS],
            "profiles": [f"{days}d" for days in PROFILE_DAYS],
            "velocity_ttl_days": VELOCITY_TTL / timedelta(days=1),
            "profile_ttl_days": PROFILE_TTL / timedelta(days=1),
        },
        "label_maturity_days": settings().history.label_maturity_days,
        "cut_lag_minutes": settings().history.cut_lag_minutes,
        "sampling": asdict(sampling),
        "source": snapshot(start, end, as_of),
        "versions": {name: version(name) for name in ("feast", "pyspark", "pyarrow", "numpy")},
    }


def features_of(service: str) -> tuple[str, ...]:
    """The features of a service, in the order of the served vector; ValueError for an unknown one."""
    if service == FEATURE_SERVICE:
        return VECTOR
    own = declared()
    for each in own.declarations.services:
        if each.name == service:
            listed = set(each.features)
            return tuple([name for name in own.vector if name in listed])
    known = ", ".join([FEATURE_SERVICE, *[each.name for each in own.declarations.services]])
    raise ValueError(f"there is no feature service {service}; there are {known}")


def saved_name(inputs: dict[str, Any]) -> str:
    """The name of the saved dataset made of `inputs`: its span and a digest of everything else."""
    digest = hashlib.sha256(json.dumps(inputs, sort_keys=True).encode()).hexdigest()
    first, last = (inputs[name][:10].replace("-", "") for name in ("from", "to"))
    return f"training_{first}_{last}_{digest[:8]}"


def manifest_of(
    inputs: dict[str, Any], figures: dict[str, int], files: list[Path], out: Path
) -> dict[str, Any]:
    """The manifest of a finished set: inputs, counts, features in order and each file's digest."""
    digests = {f"{path.relative_to(out)}": hashlib.sha256(path.read_bytes()).hexdigest() for path in files}
    known = {**inputs, **figures, "saved_dataset": saved_name(inputs)}
    return {**known, "features": list(features_of(inputs["feature_service"])), "files": digests}
