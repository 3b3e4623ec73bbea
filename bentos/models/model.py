"""A model from the store: LightGBM's native text, checked by digest, through its fastest exact calls.

A model is a folder of the BentoML model store, `<home>/bentoml/models/tollgate_fraud/<version>/`, with

* `model.txt`: LightGBM's text format (no pickle is ever loaded);
* `manifest.json`: `version`; `digest` (sha256 of model.txt, hex); `features` (names, in the
  model's order); `thresholds` {`review`, `block`}; `calibration`: null, or
  {`kind`: "isotonic", `x`: [...], `y`: [...]} (piecewise linear over the raw probability), or
  {`kind`: "platt", `a`, `b`} (p' = 1 / (1 + exp(-(a * logit(p) + b))), p kept 1e-9 from 0 and 1);
  `metrics` {}; other keys are ignored.

The library is called through ctypes: importing lightgbm would pull pandas and scikit-learn into the
serving process. One thread always: two threads under contention cost milliseconds for one row.
"""

from __future__ import annotations

import ctypes
import hashlib
import importlib.util
import json
import math
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from fraud.decision.decide import Thresholds
from stores.model_signature import model_digest, read_signature
from stores.model_text import LARGEST_TEXT

MODEL_NAME: Final = "tollgate_fraud"
_FLOAT64: Final = 1
_ROW_MAJOR: Final = 1
_NORMAL: Final = 0
_LEAF: Final = 2
_CONTRIB: Final = 3
_PARAMETERS: Final = b"num_threads=1"
#: Up to so many rows go through the single-row call: the other one parses its parameters anew.
_ROWS_ONE_BY_ONE: Final = 4

#: What a version may be called: one folder's name, never a path.
_VERSION: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_LARGEST_MANIFEST: Final = 8_000_000
_MOST_FEATURES: Final = 4096

Floats = npt.NDArray[np.float64]


class ModelError(RuntimeError):
    """A model folder that cannot be used; the text says why."""


@lru_cache(maxsize=1)
def _library() -> ctypes.CDLL:
    spec = importlib.util.find_spec("lightgbm")
    if spec is None or spec.origin is None:
        raise ModelError("the lightgbm package, which carries the library, is not installed")
    # The suffix is the platform's: .so, .dylib.
    found = next((Path(spec.origin).parent / "lib").glob("lib_lightgbm.*"), None)
    if found is None:
        raise ModelError("the lightgbm package has no library: reinstall it")
    library = ctypes.CDLL(str(found))
    library.LGBM_GetLastError.restype = ctypes.c_char_p
    # Quiet: the library would print to stdout, which belongs to the structured log.
    library.LGBM_RegisterLogCallback(_SILENCE)
    return library


@ctypes.CFUNCTYPE(None, ctypes.c_char_p)
def _SILENCE(_: bytes) -> None:
    return None


def _check(status: int) -> None:
    if status != 0:
        raise ModelError(f"LightGBM: {_library().LGBM_GetLastError().decode(errors='replace')}")


@dataclass(frozen=True, slots=True)
class Manifest:
    """What comes with a model; see the module's text for each field."""

    version: str
    digest: str
    features: tuple[str, ...]
    thresholds: Thresholds
    calibrate: Callable[[Floats], Floats] | None
    metrics: dict[str, Any] = field(default_factory=dict)


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
            thresholds=Thresholds(float(limits["review"]), float(limits["block"])),
            calibrate=_calibration(raw.get("calibration")),
            metrics=dict(raw.get("metrics") or {}),
        )
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError, RecursionError) as error:
        raise ModelError(f"manifest.json: {type(error).__name__}: {str(error)[:200]}") from None


def _calibration(raw: Any) -> Callable[[Floats], Floats] | None:
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
            clipped = np.clip(scores, 1e-9, 1 - 1e-9)
            return np.asarray(1.0 / (1.0 + np.exp(-(a * np.log(clipped / (1.0 - clipped)) + b))))

        return platt
    raise ValueError('calibration should be null, {"x": [...], "y": [...]} or {"a": ..., "b": ...}')


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


class Model:
    """A loaded model. Not thread-safe: one event loop owns it."""

    def __init__(self, files: ModelFiles) -> None:
        self.tag = f"{MODEL_NAME}:{files.folder.name}"
        self.manifest = files.manifest
        self._width = len(files.manifest.features)
        self._handle = self._load(files.text)
        self._fast = ctypes.c_void_p()
        self._one = np.zeros(self._width)
        self._one_out = np.zeros(1)
        self._length = ctypes.c_int64()
        library = _library()
        _check(
            library.LGBM_BoosterPredictForMatSingleRowFastInit(
                self._handle, _NORMAL, 0, -1, _FLOAT64, ctypes.c_int32(self._width), _PARAMETERS,
                ctypes.byref(self._fast),
            )
        )  # fmt: skip
        self._call_one = library.LGBM_BoosterPredictForMatSingleRowFast
        self._arguments_one = (
            self._fast,
            ctypes.c_void_p(self._one.ctypes.data),
            ctypes.byref(self._length),
            ctypes.c_void_p(self._one_out.ctypes.data),
        )

    @property
    def version(self) -> str:
        return self.manifest.version

    def _load(self, text: bytes) -> ctypes.c_void_p:
        library, handle, iterations = _library(), ctypes.c_void_p(), ctypes.c_int()
        _check(library.LGBM_BoosterLoadModelFromString(text, ctypes.byref(iterations), ctypes.byref(handle)))
        classes, width = ctypes.c_int(), ctypes.c_int()
        _check(library.LGBM_BoosterGetNumClasses(handle, ctypes.byref(classes)))
        _check(library.LGBM_BoosterGetNumFeature(handle, ctypes.byref(width)))
        if classes.value != 1 or width.value != self._width:
            raise ModelError(
                f"{self.tag}: has {width.value} features and {classes.value} classes, "
                f"its manifest {self._width} features and one class"
            )
        return handle

    def raw(self, rows: Floats) -> Floats:
        """Uncalibrated probabilities of `rows` (n x features, NaN = missing), as Booster.predict."""
        if 0 < len(rows) <= _ROWS_ONE_BY_ONE:
            raw = np.empty(len(rows))
            for place, row in enumerate(rows):
                self._one[:] = row
                _check(self._call_one(*self._arguments_one))
                raw[place] = self._one_out[0]
            return raw
        return self._predict(rows, _NORMAL, 1)[:, 0]

    def score(self, rows: Floats) -> Floats:
        """Calibrated fraud probabilities of `rows`."""
        return self.calibrated(self.raw(rows))

    def calibrated(self, raw: Floats) -> Floats:
        """Fraud probabilities of raw scores."""
        return self.manifest.calibrate(raw) if self.manifest.calibrate is not None else raw

    def contributions(self, rows: Floats) -> Floats:
        """SHAP values (TreeSHAP, Lundberg et al. 2018) in log-odds, n x (features + 1 base value).

        Milliseconds a row: for explanations on request, not for the scoring path.
        """
        return self._predict(rows, _CONTRIB, self._width + 1)

    def leaves(self, rows: Floats) -> Floats:
        """The leaf that each row falls into, n x trees, as whole numbers."""
        trees = ctypes.c_int()
        _check(_library().LGBM_BoosterGetCurrentIteration(self._handle, ctypes.byref(trees)))
        return self._predict(rows, _LEAF, trees.value)

    def _predict(self, rows: Floats, kind: int, outputs: int) -> Floats:
        rows = np.ascontiguousarray(rows, np.float64)
        count, width = rows.shape
        if width != self._width:
            raise ModelError(f"{self.tag}: {width} values a row, {self._width} features expected")
        out = np.empty((count, outputs))
        length = ctypes.c_int64()
        _check(
            _library().LGBM_BoosterPredictForMat(
                self._handle, ctypes.c_void_p(rows.ctypes.data), _FLOAT64, ctypes.c_int32(count),
                ctypes.c_int32(width), _ROW_MAJOR, kind, 0, -1, _PARAMETERS,
                ctypes.byref(length), ctypes.c_void_p(out.ctypes.data),
            )
        )  # fmt: skip
        if length.value != count * outputs:
            raise ModelError(f"{self.tag}: {length.value} outputs for {count} rows")
        return out

    def close(self) -> None:
        """Free the library's memory; the model cannot be used afterwards."""
        library = _library()
        if self._fast:
            library.LGBM_FastConfigFree(self._fast)
            self._fast = ctypes.c_void_p()
        if self._handle:
            library.LGBM_BoosterFree(self._handle)
            self._handle = ctypes.c_void_p()


def model_folder(home: Path, version: str) -> Path:
    """Where the store keeps `version` (with or without the `tollgate_fraud:` prefix).

    Raises `ModelError` for what is not the name of a version, so that no name leads out of the store.
    """
    name = version.removeprefix(f"{MODEL_NAME}:")
    if not _VERSION.fullmatch(name):
        raise ModelError(f"{name[:40]!r} is no version: letters, digits, '.', '_' and '-', at most 128")
    return home / "bentoml" / "models" / MODEL_NAME / name


def newest_version(home: Path) -> str | None:
    """The store's latest version, or None when it holds no model."""
    root = home / "bentoml" / "models" / MODEL_NAME
    latest = root / "latest"
    if latest.is_file():
        version = latest.read_bytes()[:256].decode(errors="replace").strip()
        if _VERSION.fullmatch(version) and (root / version / "manifest.json").is_file():
            return version
    found = [path for path in root.glob("*/manifest.json") if _VERSION.fullmatch(path.parent.name)]
    return max(found, key=lambda path: path.stat().st_mtime).parent.name if found else None
