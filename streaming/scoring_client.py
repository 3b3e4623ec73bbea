"""Bulk requests to the scoring service over one kept-alive connection."""

from __future__ import annotations

import http.client
from typing import Any, Final
from urllib.parse import urlsplit

import msgspec

from stores.settings import Settings

BULK_PATH: Final = "/v1/score/batch"
_TIMEOUT_S: Final = 15.0
_ITEMS: Final = frozenset({400, 413, 422})
_BUSY: Final = frozenset({408, 429, 500, 502, 503, 504})


class ServiceAwayError(ConnectionError):
    """The service does not answer, or says that it is too busy; asking again later may work."""


class ServiceRefusedError(RuntimeError):
    """The service refuses this caller or this request as a whole; asking again will not help."""


class ItemsRefusedError(RuntimeError):
    """The service refuses the request for what is in it: one of its items may be why."""


class ScoringClient:
    """Asks one service. Asking twice is harmless: it answers a transaction id once in 24 hours."""

    def __init__(self, configured: Settings) -> None:
        parts = urlsplit(
            configured.stream.score_url or f"http://{configured.serve.host}:{configured.serve.port}"
        )
        secure = parts.scheme == "https"
        kind = http.client.HTTPSConnection if secure else http.client.HTTPConnection
        self._connection = kind(parts.hostname or "127.0.0.1", parts.port, timeout=_TIMEOUT_S)
        self._path = parts.path.rstrip("/") + BULK_PATH
        self._headers = {"content-type": "application/json"}
        if configured.stream.score_token_file is not None:
            self._headers["authorization"] = (
                f"Bearer {configured.stream.score_token_file.read_text().strip()}"
            )

    def score(self, payloads: list[bytes]) -> list[dict[str, Any]]:
        """The answers to valid transactions (canonical JSON), in their order.

        An item that the service could not score has an `error` with field and reason. Raises
        `ServiceAwayError`, `ItemsRefusedError` and `ServiceRefusedError`.
        """
        body = b"[" + b",".join(payloads) + b"]"
        try:
            self._connection.request("POST", self._path, body, self._headers)
            response = self._connection.getresponse()
            data = response.read()
        except (OSError, http.client.HTTPException) as error:
            self._connection.close()
            raise ServiceAwayError(type(error).__name__) from None
        if response.status in _BUSY:
            raise ServiceAwayError(f"status {response.status}")
        if response.status in _ITEMS:
            raise ItemsRefusedError(f"status {response.status}")
        if response.status != 200:
            raise ServiceRefusedError(f"the scoring service answered {response.status} to a bulk request")
        try:
            answers = _decode(data)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):  # a proxy's page, or half an answer
            raise ServiceAwayError("what came is no list of answers") from None
        if len(answers) != len(payloads):
            raise ServiceAwayError(f"{len(payloads)} transactions got {len(answers)} answers")
        if any(_came_too_much(answer) for answer in answers):
            raise ServiceAwayError("items were turned away")
        return answers

    def close(self) -> None:
        self._connection.close()


_decode: Final = msgspec.json.Decoder(list[dict[str, Any]]).decode


def _came_too_much(answer: dict[str, Any]) -> bool:
    """Whether the service, not the transaction, is why there is no answer."""
    error = answer.get("error")
    field = error.get("field", "") if isinstance(error, dict) else ""
    return str(field).startswith("(") and field != "(body)"
