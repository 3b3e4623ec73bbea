"""Export a saved model as ONNX, checked for equality: `python -m training.onnx_export`.

Needs the optional extra `bench` (onnxmltools, onnxruntime). ONNX's tree operators compare in
32 bits, so that a value within a rounding of a split may go the other way: the check counts such
rows instead of hoping, and refuses an export that differs on more than a stated share.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray

from training.evidence import saved_model
from training.model import Model
from training.rows import TrainingSetError
from training.save import model_folder, newest_version

#: Scores this close are the same score kept in 32 bits.
TOLERANCE = 1e-5
#: Rows that may differ by more, because a value sits within a 32-bit rounding of a split.
MOST_DIFFERENT = 1e-3


class ExportError(ValueError):
    """An export that cannot be made or does not score as the model does."""


@dataclass(frozen=True, slots=True)
class Equality:
    """How the export compares with the model, on the raw (uncalibrated) score."""

    rows: int
    different: int
    largest_difference: float


def export(model: Model) -> bytes:
    """The trees as an ONNX model: input `features` float32 (n, features), output probabilities."""
    try:
        from onnxmltools import convert_lightgbm
        from onnxmltools.convert.common.data_types import FloatTensorType
    except ImportError as error:
        raise ExportError("ONNX export needs the extra: pip install 'tollgate[bench]'") from error
    shape = [("features", FloatTensorType([None, len(model.names)]))]
    converted = convert_lightgbm(model.booster, initial_types=shape, zipmap=False, target_opset=15)
    return bytes(converted.SerializeToString())


def compare(model: Model, onnx: bytes, features: NDArray[np.float64]) -> Equality:
    """Score `features` with both and count the rows that differ by more than `TOLERANCE`."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(onnx, options, providers=["CPUExecutionProvider"])
    probabilities = session.run(None, {"features": features.astype(np.float32)})[1]
    difference = np.abs(np.asarray(probabilities)[:, 1].astype(np.float64) - model.raw(features, threads=1))
    return Equality(len(features), int((difference > TOLERANCE).sum()), float(difference.max(initial=0.0)))


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m training.onnx_export", description="Export as ONNX.")
    parser.add_argument("--version", help="model version (default: the newest)")
    parser.add_argument("--out", type=Path, help="file to write (default: model.onnx in the current folder)")
    parser.add_argument("--rows", type=int, default=5_000, help="reference rows to compare on")
    options = parser.parse_args(argv)
    try:
        version = options.version or newest_version()
        model, _ = saved_model(version)
        onnx = export(model)
        table = pq.read_table(model_folder(version) / "reference.parquet", columns=list(model.names))
        table = table.slice(0, options.rows)
        features = np.column_stack(
            [column.to_numpy(zero_copy_only=False).astype(np.float64) for column in table.itercolumns()]
        )
        equality = compare(model, onnx, features)
        if equality.different > MOST_DIFFERENT * equality.rows:
            raise ExportError(
                f"{equality.different} of {equality.rows} rows differ, "
                f"by up to {equality.largest_difference:.2g}"
            )
    except (LookupError, TrainingSetError, ExportError) as error:
        print(f"onnx_export: {error}", file=sys.stderr)
        return 1
    out = options.out or Path("model.onnx")
    out.write_bytes(onnx)
    print(f"onnx_export: {out} {json.dumps(asdict(equality))}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
