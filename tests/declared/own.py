"""A small set of declarations of a team's own, as tests in several rooms use it."""

from __future__ import annotations

from pathlib import Path

from fraud.declared.declaration import (
    Aggregate,
    Attribute,
    Declarations,
    Expression,
    Function,
    Measure,
    Service,
    StreamView,
    TableView,
    encode,
)
from stores.declared import plan_path
from stores.settings import Settings

MINUTE, HOUR, DAY = 60_000, 3_600_000, 86_400_000


def aggregate(name: str, function: Function, column: str, window_ms: int) -> Aggregate:
    return Aggregate(name, function, column, window_ms)


OWN = Declarations(
    attributes=(
        Attribute("entry_mode", "category", {"chip": 0, "contactless": 1, "magstripe": 2}),
        Attribute("email_domain", "text", most=64),
    ),
    measures=(
        Measure("is_ecom", "channel == 'ecom'"),
        Measure("is_small", "amount < 2000.0"),
    ),
    streams=(
        StreamView(
            "card_risk", "card", "card_id", 30 * DAY,
            (
                aggregate("card_txn_count_7d", "count", "", 7 * DAY),
                aggregate("card_ecom_count_1h", "count_if", "is_ecom", HOUR),
                aggregate("card_small_count_5m", "count_if", "is_small", 5 * MINUTE),
                aggregate("card_amount_max_24h", "max", "amount", DAY),
                aggregate("card_distinct_countries_24h", "count_distinct", "country", DAY),
                aggregate("card_new_entry_mode_30d", "new", "entry_mode", 30 * DAY),
            ),
        ),
        StreamView(
            "email_velocity", "email", "email_domain", 30 * DAY,
            (
                aggregate("email_txn_count_1h", "count", "", HOUR),
                aggregate("email_amount_mean_24h", "mean", "amount", DAY),
                aggregate("email_distinct_cards_24h", "count_distinct", "card_id", DAY),
            ),
        ),
    ),
    tables=(TableView("customer_kyc", "customer", "customer_id", 62 * DAY * 1000, ("credit_limit", "is_vip")),),
    expressions=(Expression("amount_over_limit", "amount / (credit_limit * 100.0)"),),
    services=(
        Service(
            "fraud_scoring_v2",
            ("txn_amount", "txn_entry_mode", "card_txn_count_7d", "card_ecom_count_1h", "email_txn_count_1h",
             "credit_limit", "amount_over_limit"),
        ),
    ),
    order=(
        "txn_entry_mode", "card_txn_count_7d", "card_ecom_count_1h", "card_small_count_5m", "card_amount_max_24h",
        "card_distinct_countries_24h", "card_new_entry_mode_30d", "email_txn_count_1h", "email_amount_mean_24h",
        "email_distinct_cards_24h", "credit_limit", "is_vip", "amount_over_limit",
    ),
)  # fmt: skip


def write_plan(chosen: Settings, declarations: Declarations = OWN) -> Path:
    """Leave `declarations` where every process of `chosen` reads them."""
    path = plan_path(chosen)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(encode(declarations))
    return path
