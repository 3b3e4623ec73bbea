"""A client of the scoring API, for those who have payments.

    from tollgate_client import Client, Payment

    with Client("https://fraud.example", token="...") as fraud:
        payment = Payment("t-1", now, "customer-1", "card-token-1", "shop-1", "12.30", "EUR", "ecom")
        decision = fraud.score(payment)
        if decision.decision == "BLOCK": ...

It needs httpx and nothing of the platform. Calls are retried within one deadline, under the same
transaction id, so that no payment is decided twice.
"""

from tollgate_client.client import Client, Retries
from tollgate_client.errors import (
    Conflict,
    NotAllowed,
    Refused,
    TollgateError,
    Unavailable,
)
from tollgate_client.messages import Decision, Label, Outcome, Payment
from tollgate_client.tokens import token

__all__ = [
    "Client",
    "Conflict",
    "Decision",
    "Label",
    "NotAllowed",
    "Outcome",
    "Payment",
    "Refused",
    "Retries",
    "TollgateError",
    "Unavailable",
    "token",
]
