"""A model's signature: who may write the model store cannot make up a model that serves.

The digest in a manifest is no proof, since whoever changes the trees changes it too. Training signs both
files with the deployment's keys (`stores.keys`, purpose `models`) and the service verifies them. A key that
is retired verifies no model: sign those that shall go on before (`python -m training.save --sign VERSION`).
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Final

from stores.files import write_whole
from stores.keys import SIGNATURE_BYTES, Seal

#: The file beside model.txt and manifest.json: the signature in hexadecimal.
SIGNATURE: Final = "signature"


def model_digest(text: bytes, manifest: bytes) -> str:
    """SHA-256 over both files of a model, hex."""
    return hashlib.sha256(b"%d\0" % len(text) + text + manifest).hexdigest()


def _signed(version: str, digest: str) -> bytes:
    return f"model {version} {digest}".encode()


def sign_model(folder: Path, version: str, seal: Seal) -> None:
    """Sign the files in `folder`, as they are now, as the model `version`."""
    digest = model_digest((folder / "model.txt").read_bytes(), (folder / "manifest.json").read_bytes())
    write_whole(folder / SIGNATURE, seal.sign(_signed(version, digest)).hex() + "\n")


def read_signature(folder: Path) -> bytes | None:
    """The signature in `folder`: None without one, empty if it is none that could verify."""
    try:
        with (folder / SIGNATURE).open("rb") as file:
            text = file.read(4 * SIGNATURE_BYTES)
        return bytes.fromhex(text.decode().strip())
    except FileNotFoundError:
        return None
    except (OSError, ValueError):
        return b""


def model_verifies(version: str, digest: str, signature: bytes, seal: Seal) -> bool:
    """Whether a key in force signed the files of `digest` as this version."""
    return len(signature) == SIGNATURE_BYTES and seal.verifies(_signed(version, digest), signature)
