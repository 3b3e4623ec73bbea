"""The real service, as the tests of its routes have it."""

from __future__ import annotations

from tests.bentos.conftest import service

__all__ = ["service"]
