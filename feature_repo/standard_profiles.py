"""What Spark computes of every standard entity at each cut: 1, 7 and 30 days back, as declarations.

Windows are ``[cut - days, cut)`` over event time, and only what was known before the cut counts. Amounts are
reference cents. The functions stand in `feature_repo.aggregates.functions` and, where no generic aggregation
says what is meant, in `feature_repo.aggregates.plugins`.
"""

from __future__ import annotations

from typing import Final

from feature_repo.words import Word, figure

_PRIOR: Final = 10  # of fraud_risk, in feature_repo.aggregates.plugins.frauds


def _history(of: str, *others: str) -> list[Word]:
    """Amounts, counterparties and frauds of an entity."""
    found = []
    for w, back in (("1d", "over 1 day"), ("7d", "over 7 days"), ("30d", "over 30 days")):
        longer = w != "1d"
        found += [
            figure(f"{of}_txn_count_{w}", "count", over=w, meaning=f"transactions of the {of} {back}"),
            figure(f"{of}_amount_sum_{w}", "sum", "amount", over=w,
                   meaning=f"sum of its amounts {back}", served=False),
            figure(f"{of}_amount_mean_{w}", "mean", "amount", over=w, meaning=f"mean of its amounts {back}"),
            figure(f"{of}_amount_std_{w}", "std", "amount", over=w,
                   meaning=f"standard deviation of its amounts {back}", served=longer),
        ]  # fmt: skip
        found += [
            figure(f"{of}_distinct_{other}s_{w}", "count_distinct", f"{other}_id", over=w,
                   meaning=f"different {other}s it dealt with {back}", served=longer)
            for other in others
        ]  # fmt: skip
        found += [
            figure(f"{of}_fraud_count_{w}", "fraud_count", over=w,
                   meaning=f"its frauds that became known {back}"),
            figure(f"{of}_fraud_rate_{w}", "fraud_rate", over=w,
                   meaning=f"share of its transactions {back}, counted back from the label maturity before "
                   "the cut, that were known to be fraud"),
        ]  # fmt: skip
    return [
        *found,
        figure(f"{of}_fraud_risk_30d", "fraud_risk", over="30d",
               meaning=f"{of}_fraud_rate_30d as if {_PRIOR} more genuine transactions had been seen"),
        figure(f"{of}_days_genuine_minus_fraud", "days_genuine_minus_fraud", over="30d",
               meaning="days since its newest transaction that ripened without a fraud report, less days "
               "since its newest known fraud: above 0 if the fraud is the newer; null without a known fraud"),
        figure(f"{of}_days_since_first_fraud_30d", "days_since_first_fraud", over="30d",
               meaning="days since the first known of its frauds of the last 30 days; null without one"),
    ]  # fmt: skip


def _largest(of: str) -> Word:
    return figure(
        f"{of}_amount_max_30d", "max", "amount", over="30d", meaning="largest of its amounts over 30 days"
    )


_USUAL_PLACE: Final = [
    figure(f"customer_usual_{what}_30d", f"usual_{what}", over="30d",
           meaning=f"{what} of the middle of its transactions with a location over 30 days")
    for what in ("latitude", "longitude")
]  # fmt: skip

_AMONG_PEERS: Final = [
    figure("merchant_share_30d", "share", over="30d",
           meaning="share of all transactions that are the merchant's, over 30 days"),
    figure("merchant_category_share_30d", "category_share", over="30d",
           meaning="share of all transactions in its category, over 30 days"),
    figure("merchant_category_amount_mean_30d", "category_mean", "amount", over="30d",
           meaning="mean amount in its category over 30 days"),
    figure("merchant_category_amount_std_30d", "category_std", "amount", over="30d",
           meaning="standard deviation of amounts in its category over 30 days"),
]  # fmt: skip

#: By entity.
PROFILES: Final[dict[str, list[Word]]] = {
    "customer": [*_history("customer", "merchant"), _largest("customer"), *_USUAL_PLACE],
    "card": [*_history("card", "merchant"), _largest("card")],
    "merchant": [*_history("merchant", "card"), _largest("merchant"), *_AMONG_PEERS],
    "terminal": [*_history("terminal", "card"), _largest("terminal")],
    "device": _history("device", "card", "customer"),
    "ip": _history("ip", "card", "customer"),
}
