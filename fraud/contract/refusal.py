"""How the contract refuses: the field, and what it should be, never the input itself."""

from __future__ import annotations


class ContractError(ValueError):
    """An input that breaks the contract: `field` names what, `reason` says how to mend it."""

    def __init__(self, field: str, reason: str) -> None:
        super().__init__(f"{field}: {reason}")
        self.field = field
        self.reason = reason
