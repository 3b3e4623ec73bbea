"""What an exported model and the client that asks for it must agree on (Open Inference Protocol)."""

from __future__ import annotations

from typing import Final

#: The one input tensor: rows of the model's features, in its order.
INPUT: Final = "features"


def served_name(version: str) -> str:
    """The name under which an inference server holds `version`: one model per version."""
    return f"tollgate_fraud-{version}"
