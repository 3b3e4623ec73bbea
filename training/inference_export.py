"""Export a saved model for servers of the Open Inference Protocol.

    python -m training.inference_export [--version V] --out DIR [--triton]

`DIR/tollgate_fraud-<version>/` becomes a model of MLServer's repository: LightGBM's own text with
the same bytes as in the model store, and its settings. With `--triton` it is a model of Triton's
repository too (ONNX Runtime, 32-bit inputs). A server answers raw scores: calibration and
thresholds stay with the service, which asks by `TOLLGATE_REMOTE_MODEL_URL` (`bentos.models.remote_model`).
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from pathlib import Path
from typing import Any, Final

from stores.served_models import INPUT, served_name
from training.evidence import saved_model
from training.model import Model
from training.onnx_export import ExportError, export
from training.rows import TrainingSetError
from training.save import model_folder, newest_version

_TRITON: Final = """name: "{name}"
platform: "onnxruntime_onnx"
max_batch_size: 1024
input [ {{ name: "{input}" data_type: TYPE_FP32 dims: [ {width} ] }} ]
output [
  {{ name: "label" data_type: TYPE_INT64 dims: [ 1 ] reshape: {{ shape: [ ] }} }},
  {{ name: "probabilities" data_type: TYPE_FP32 dims: [ 2 ] }}
]
"""


def server_settings(name: str, version: str, width: int) -> dict[str, Any]:
    """MLServer's `model-settings.json` of a model with `width` features."""
    return {
        "name": name,
        "implementation": "mlserver_lightgbm.LightGBMModel",
        "platform": "lightgbm",
        "inputs": [{"name": INPUT, "datatype": "FP64", "shape": [-1, width]}],
        "outputs": [{"name": "predict", "datatype": "FP64", "shape": [-1]}],
        "parameters": {"uri": "./model.txt", "version": version},
    }


def write_repository(version: str, out: Path, *, triton: bool = False) -> Path:
    """Write the model's folder under `out`, replacing it, and return it.

    Raises TrainingSetError if `version` is not in the store, ExportError if ONNX cannot be made.
    """
    model, _ = saved_model(version)
    name = served_name(version)
    folder = out / name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    shutil.copyfile(model_folder(version) / "model.txt", folder / "model.txt")
    text = json.dumps(server_settings(name, version, len(model.names)), indent=1)
    (folder / "model-settings.json").write_text(text + "\n")
    if triton:
        _write_triton(model, name, folder)
    return folder


def _write_triton(model: Model, name: str, folder: Path) -> None:
    (folder / "1").mkdir()
    (folder / "1" / "model.onnx").write_bytes(export(model))
    text = _TRITON.format(name=name, input=INPUT, width=len(model.names))
    (folder / "config.pbtxt").write_text(text)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m training.inference_export", description="Export for inference servers."
    )
    parser.add_argument("--version", help="model version (default: the newest)")
    parser.add_argument("--out", type=Path, required=True, help="the server's model repository")
    parser.add_argument("--triton", action="store_true", help="as an ONNX model for Triton too")
    options = parser.parse_args(argv)
    try:
        folder = write_repository(options.version or newest_version(), options.out, triton=options.triton)
    except (LookupError, TrainingSetError, ExportError) as error:
        print(f"inference_export: {error}", file=sys.stderr)
        return 1
    print(f"inference_export: {folder}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
