"""The platform's own features as this process computes them: what was declared, and applied last.

`standard.json` is what `feature_repo.standard` declares as it is shipped (`python -m feature_repo.derive`
writes it). Where other standard features were applied, the document of declarations holds these, and
every table and compiled loop of the process is made from them.
"""

from __future__ import annotations

from importlib.resources import files
from typing import Final

import msgspec
from msgspec import Struct

from fraud.declared.figures import Standard, decode_standard
from machine.features_given import document_path, given_document

SHIPPED: Final = "standard.json"


class PlanError(ValueError):
    """A document of features that this program cannot read; the text says what to do."""


class _Document(Struct):
    """The part of the document of declarations that replaces what is shipped."""

    standard: Standard | None = None


def shipped() -> Standard:
    """The standard features as they are shipped."""
    return decode_standard(files("fraud.features").joinpath(SHIPPED).read_bytes())


def _applied() -> Standard | None:
    document = given_document()
    if document is None or b'"standard"' not in document:
        return None
    try:
        return msgspec.json.decode(document, type=_Document).standard
    except msgspec.DecodeError as error:
        raise PlanError(f"{document_path()}: {error}; run `feast apply` with this version") from None


STANDARD: Final = _applied() or shipped()
