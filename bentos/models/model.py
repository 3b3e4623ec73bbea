"""A model of the store in LightGBM's fastest exact calls.

The library is called through ctypes: importing lightgbm would pull pandas and scikit-learn into the
serving process. One thread always: two threads under contention cost milliseconds for one row.
"""

from __future__ import annotations

import ctypes
import importlib.util
from functools import lru_cache
from pathlib import Path
from typing import Final

import numpy as np

from stores.models import MODEL_NAME, Floats, ModelError, ModelFiles

_FLOAT64: Final = 1
_ROW_MAJOR: Final = 1
_NORMAL: Final = 0
_LEAF: Final = 2
_CONTRIB: Final = 3
_PARAMETERS: Final = b"num_threads=1"
#: Up to so many rows go through the single-row call: the other one parses its parameters anew.
_ROWS_ONE_BY_ONE: Final = 4


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
