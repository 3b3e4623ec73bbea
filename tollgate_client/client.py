"""Calls over HTTP: one deadline for a call and all of its retries, and the same id for all of them."""

from __future__ import annotations

import json
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Final, Literal, Self

import httpx

from tollgate_client.errors import Conflict, NotAllowed, Refused, TollgateError, Unavailable
from tollgate_client.messages import Decision, Label, Outcome, Payment

#: Answers that another attempt may better: too slow, too fast, too busy, or an error of the service.
_AGAIN: Final = frozenset({408, 429, 500, 502, 503, 504})
_LONGEST_ANSWER: Final = 4 << 20
MOST_PAYMENTS: Final = 1024


@dataclass(frozen=True, slots=True)
class Retries:
    """How often a call is tried again: at most `most` times after the first, `pause` seconds before the
    first of them and twice as long before each further one, with jitter, or as long as the service asks."""

    most: int = 2
    pause: float = 0.02

    def __post_init__(self) -> None:
        if not 0 <= self.most <= 10 or self.pause < 0:
            raise ValueError("most should lie between 0 and 10, pause not below 0")

    def wait(self, attempt: int, asked: float | None) -> float:
        """Seconds before retry number `attempt` (from 1), where the service asked for `asked`."""
        if asked is not None:
            return asked
        doubled: float = self.pause * (1 << attempt - 1)
        return doubled * random.uniform(0.5, 1.0)


class Client:
    """A client of one service, safe to share between threads; close it, or use it in `with`.

    `deadline` is seconds for a call with all of its retries, `attempt` for one attempt: a payment does not
    wait longer. Connections are kept. Redirects are not followed: a token goes to one address only.
    """

    def __init__(
        self,
        url: str,
        token: str | None = None,
        *,
        deadline: float = 1.0,
        attempt: float = 0.5,
        retries: Retries = Retries(),  # frozen
        verify: Any = True,
    ) -> None:
        if not url.startswith(("http://", "https://")):
            raise ValueError("url should begin with https:// (or http://)")
        if deadline <= 0 or attempt <= 0:
            raise ValueError("deadline and attempt should be above 0")
        self._deadline, self._attempt, self._retries = deadline, attempt, retries
        headers = {"content-type": "application/json", "user-agent": "tollgate-client/1"}
        if token is not None:
            headers["authorization"] = f"Bearer {token}"
        self._http = httpx.Client(base_url=url.rstrip("/"), headers=headers, verify=verify)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Give the connections up."""
        self._http.close()

    def score(self, payment: Payment) -> Decision:
        """The decision on `payment`. Raises `Refused` (`Conflict`, `NotAllowed`) or `Unavailable`."""
        return Decision.of(self._object(self._call("/v1/score", payment.body())))

    def score_or(
        self, payment: Payment, fallback: Literal["APPROVE", "REVIEW", "BLOCK"] = "REVIEW"
    ) -> Decision:
        """As `score`, and `fallback`, with the reason in `degraded`, where the service gives no decision.

        The payment path always has an answer. `NotAllowed` is raised: nobody would notice it otherwise.
        """
        try:
            return self.score(payment)
        except NotAllowed:
            raise
        except Refused as error:
            cause = f"refused:{error.field}"
        except TollgateError:
            cause = "no_answer"
        return Decision(payment.transaction_id, fallback, degraded=(cause,), variant="fallback")

    def score_many(self, payments: Sequence[Payment]) -> list[Decision | Refused]:
        """For each of up to 1,024 payments, in order, its decision, or why there is none (status 0)."""
        if not 1 <= len(payments) <= MOST_PAYMENTS:
            raise ValueError(f"should be 1 to {MOST_PAYMENTS:,} payments")
        answers = self._call("/v1/score/batch", [payment.body() for payment in payments])
        if not isinstance(answers, list) or len(answers) != len(payments):
            raise TollgateError("the answer does not fit the request: is this the scoring service?")
        return [
            Refused(0, *_problem(answer)) if "error" in answer else Decision.of(answer)
            for answer in map(self._object, answers)
        ]

    def report(self, labels: Label | Sequence[Label]) -> int:
        """Report what became known of transactions; return how many labels were kept."""
        body = labels.body() if isinstance(labels, Label) else [label.body() for label in labels]
        return int(self._object(self._call("/v1/labels", body))["accepted"])

    def tell(self, outcomes: Outcome | Sequence[Outcome]) -> int:
        """Tell what became of payments; return how many outcomes were kept."""
        body = outcomes.body() if isinstance(outcomes, Outcome) else [each.body() for each in outcomes]
        return int(self._object(self._call("/v1/outcomes", body))["accepted"])

    def _call(self, path: str, body: Any) -> Any:
        content = json.dumps(body, allow_nan=False, separators=(",", ":")).encode()
        until = time.monotonic() + self._deadline
        attempt, last = 0, "the deadline had passed"
        while True:
            left = until - time.monotonic()
            if left <= 0:
                raise Unavailable(attempt, last)
            asked = None
            attempt += 1
            try:
                answer = self._http.post(path, content=content, timeout=min(self._attempt, left))
            except httpx.TransportError as error:
                last = type(error).__name__
            else:
                if answer.status_code < 300:
                    return _parsed(answer)
                if answer.status_code not in _AGAIN:
                    raise _refusal(answer)
                last, asked = f"status {answer.status_code}", _seconds(answer.headers.get("retry-after"))
            pause = self._retries.wait(attempt, asked)
            if attempt > self._retries.most or time.monotonic() + pause >= until:
                raise Unavailable(attempt, last)
            _sleep(pause)

    @staticmethod
    def _object(answer: Any) -> dict[str, Any]:
        if not isinstance(answer, dict):
            raise TollgateError("the answer does not fit the request: is this the scoring service?")
        return answer


_sleep: Final[Callable[[float], None]] = time.sleep


def _parsed(answer: httpx.Response) -> Any:
    if len(answer.content) > _LONGEST_ANSWER:
        raise TollgateError("the answer is longer than any of the scoring service's")
    try:
        return answer.json()
    except ValueError:
        raise TollgateError("the answer is no JSON: is this the scoring service?") from None


def _refusal(answer: httpx.Response) -> Refused:
    try:
        field, reason = _problem(answer.json())
    except ValueError:
        field, reason = "(answer)", "is not the scoring service's"
    kind = {401: NotAllowed, 403: NotAllowed, 409: Conflict}.get(answer.status_code, Refused)
    return kind(answer.status_code, field, reason)


def _problem(body: Any) -> tuple[str, str]:
    error = body.get("error") if isinstance(body, dict) else None
    if not isinstance(error, dict):
        return "(answer)", "is not the scoring service's"
    return str(error.get("field")), str(error.get("reason"))


def _seconds(text: str | None) -> float | None:
    try:
        return max(float(text), 0.0) if text is not None else None
    except ValueError:  # a date: as if nothing had been said
        return None
