"""The model store: names, manifests, the newest version, and the one calibration formula.

A model is a folder of the BentoML model store, `<home>/bentoml/models/tollgate_fraud/<version>/`, with

* `model.txt`: LightGBM's text format (no pickle is ever loaded);
* `manifest.json`: `version`; `digest` (sha256 of model.txt, hex); `features` (names, in the
  model's order); `thresholds` {`review`, `block`}; `calibration`: null, or
  {`kind`: "isotonic", `x`: [...], `y`: [...]} (piecewise linear over the raw probability), or
  {`kind`: "platt", `a`, `b`} (p' = 1 / (1 + exp(-(a * logit(p) + b))), p kept 1e-9 from 0 and 1);
  `patterns`: [{`name`, `thresholds`, `calibration`}], what counts for rows that lack views
  (`stores.patterns`), none by default; `metrics` {}; other keys are ignored;
* `signature` of both (`stores.model_signature`), and `reference.parquet` (scored held-out rows, for drift).

Training saves it, the service loads it, gates, drift and the status page read it: by this module.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from fraud.decision.decide import Thresholds
from stores.model_signature import model_digest, read_signature
from stores.model_text import LARGEST_TEXT

MODEL_NAME: Final = "tollgate_fraud"
#: What a version may be called: one folder's name, never a path.
_VERSION: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_LARGEST_MANIFEST: Final = 8_000_000
_MOST_FEATURES: Final = 4096
_MOST_PATTERNS: Final = 1024
#: How near to 0 and 1 a raw score may be before its log-odds are taken.
_EPSILON: Final = 1e-9

Floats = npt.NDArray[np.float64]


class ModelError(RuntimeError):
    """A model folder that cannot be used; the text says why."""


def store_folder(home: Path) -> Path:
    """Where all versions are."""
    return home / "bentoml" / "models" / MODEL_NAME


def model_folder(home: Path, version: str) -> Path:
    """Where the store keeps `version` (with or without the `tollgate_fraud:` prefix).

    Raises `ModelError` for what is not the name of a version, so that no name leads out of the store.
    """
    name = version.removeprefix(f"{MODEL_NAME}:")
    if not _VERSION.fullmatch(name):
        raise ModelError(f"{name[:40]!r} is no version: letters, digits, '.', '_' and '-', at most 128")
    return store_folder(home) / name


def versions(home: Path) -> list[str]:
    """Every saved version, the newest first: the one that BentoML calls latest, then by time of saving."""
    root = store_folder(home)
    found = [path for path in root.glob("*/manifest.json") if _VERSION.fullmatch(path.parent.name)]
    names = [path.parent.name for path in sorted(found, key=lambda path: (-path.stat().st_mtime_ns, path))]
    latest = root / "latest"
    if latest.is_file():
        version = latest.read_bytes()[:256].decode(errors="replace").strip()
        if version in names:
            names.remove(version)
            names.insert(0, version)
    return names


def newest_version(home: Path) -> str | None:
    """The version that was saved last, or None when the store holds no model."""
    return next(iter(versions(home)), None)


@dataclass(frozen=True, slots=True)
class Limits:
    """From a raw score to a decision: the calibration, and the thresholds of what it gives."""

    thresholds: Thresholds
    calibrate: Callable[[Floats], Floats] | None = None

    def score(self, raw: Floats) -> Floats:
        """Fraud probabilities of raw scores."""
        return self.calibrate(raw) if self.calibrate is not None else raw


@dataclass(frozen=True, slots=True)
class Manifest:
    """What comes with a model; see the module's text for each field."""

    version: str
    digest: str
    features: tuple[str, ...]
    thresholds: Thresholds
    calibrate: Callable[[Floats], Floats] | None
    metrics: dict[str, Any] = field(default_factory=dict)
    patterns: dict[str, Limits] = field(default_factory=dict)

    @property
    def limits(self) -> Limits:
        """What counts for a row that lacks no view."""
        return Limits(self.thresholds, self.calibrate)


def read_manifest(text: str | bytes) -> Manifest:
    """Parse `manifest.json`; raise `ModelError` naming the part that is wrong."""
    try:
        raw = json.loads(text)
        limits = raw["thresholds"]
        if not isinstance(raw["features"], list) or not 1 <= len(raw["features"]) <= _MOST_FEATURES:
            raise ValueError(f"features should be a list of 1 to {_MOST_FEATURES} names")
        if len(set(map(str, raw["features"]))) < len(raw["features"]):
            raise ValueError("features should be there once each")
        return Manifest(
            version=str(raw["version"]),
            digest=str(raw["digest"]).removeprefix("sha256:"),
            features=tuple(str(name) for name in raw["features"]),
            thresholds=_thresholds(limits),
            calibrate=read_calibration(raw.get("calibration")),
            metrics=dict(raw.get("metrics") or {}),
            patterns=_patterns(raw.get("patterns") or []),
        )
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError, RecursionError) as error:
        raise ModelError(f"manifest.json: {type(error).__name__}: {str(error)[:200]}") from None


def _thresholds(limits: Any) -> Thresholds:
    return Thresholds(float(limits["review"]), float(limits["block"]))


def _patterns(raw: Any) -> dict[str, Limits]:
    if not isinstance(raw, list) or len(raw) > _MOST_PATTERNS:
        raise ValueError(f"patterns should be a list of at most {_MOST_PATTERNS}")
    return {
        str(each["name"]): Limits(_thresholds(each["thresholds"]), read_calibration(each.get("calibration")))
        for each in raw
    }


@dataclass(frozen=True, slots=True)
class ModelFiles:
    """A model's files as they were read once: what was checked is what is loaded."""

    folder: Path
    text: bytes
    manifest: Manifest
    #: SHA-256 over both files.
    digest: str
    #: None for a model that nobody signed.
    signature: bytes | None = None


def read_model_files(folder: Path) -> ModelFiles:
    """Read a model's files; raise `ModelError` if they are too large or do not belong together."""
    try:
        text = _read(folder / "model.txt", LARGEST_TEXT)
        manifest_text = _read(folder / "manifest.json", _LARGEST_MANIFEST)
    except OSError as error:
        raise ModelError(f"{folder.name}: {error.strerror or error}") from None
    manifest = read_manifest(manifest_text)
    if hashlib.sha256(text).hexdigest() != manifest.digest:
        raise ModelError(f"{folder.name}: model.txt does not have the digest its manifest names; refused")
    if manifest.version != folder.name:
        raise ModelError(f"{folder.name}: its manifest calls itself {manifest.version[:40]!r}; refused")
    return ModelFiles(folder, text, manifest, model_digest(text, manifest_text), read_signature(folder))


def _read(path: Path, most: int) -> bytes:
    with path.open("rb") as file:
        content = file.read(most + 1)
    if len(content) > most:
        raise ModelError(f"{path.parent.name}: {path.name} is larger than {most} bytes")
    return content


def read_calibration(raw: Any) -> Callable[[Floats], Floats] | None:
    """The map from raw scores to probabilities that a manifest describes; None for none.

    Raises ValueError for what describes no map.
    """
    if raw is None:
        return None
    if isinstance(raw, dict) and "x" in raw and "y" in raw:
        x, y = np.asarray(raw["x"], np.float64), np.asarray(raw["y"], np.float64)
        rising = x.ndim == y.ndim == 1 and len(x) == len(y) > 0 and not (np.diff(x) < 0).any()
        if not rising or (np.diff(y) < 0).any() or not (np.isfinite(x).all() and np.isfinite(y).all()):
            raise ValueError("calibration: x and y should be finite, rising and of one length")
        return lambda scores: np.interp(scores, x, y)
    if isinstance(raw, dict) and "a" in raw and "b" in raw:
        a, b = float(raw["a"]), float(raw["b"])
        if not (math.isfinite(a) and math.isfinite(b)):
            raise ValueError("calibration: a and b should be finite")

        def platt(scores: Floats) -> Floats:
            clipped = np.clip(scores, _EPSILON, 1 - _EPSILON)
            return np.asarray(1.0 / (1.0 + np.exp(-(a * np.log(clipped / (1.0 - clipped)) + b))))

        return platt
    raise ValueError('calibration should be null, {"x": [...], "y": [...]} or {"a": ..., "b": ...}')
