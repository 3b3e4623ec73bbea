"""The oracle of the aggregates: the same profiles in DuckDB, written out one by one.

Every feature is a plain query over the raw rows for one cut: no partial sums, no shared
windows, nothing in common with the Spark job but the definition of each feature.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import duckdb
import pyarrow as pa

from fraud.features.entities import ENTITIES, PROFILE_DAYS, Entity

_MATURITY_DAYS = 7
_WITH_LARGEST = ("customer", "card", "merchant", "terminal")


def oracle_profiles(
    entity: Entity, cut: datetime, transactions: pa.Table, labels: pa.Table
) -> dict[str, dict[str, Any]]:
    """Features by key as of `cut`; `transactions` may hold repeats."""
    base = duckdb.connect()
    base.execute("SET TimeZone = 'UTC'")
    base.register("arrived", transactions)
    base.register("every_word", labels)
    # A weaker source after a stronger one says nothing.
    base.execute(
        "CREATE TEMP TABLE words AS SELECT * FROM (SELECT *, CASE source WHEN 'chargeback' THEN 4 WHEN 'issuer' "
        "THEN 4 WHEN 'analyst' THEN 3 WHEN 'import' THEN 3 ELSE 0 END AS rank FROM every_word) QUALIFY rank >= "
        "max(rank) OVER (PARTITION BY transaction_id ORDER BY created_timestamp, rank)"
    )
    base.execute("CREATE TEMP TABLE t AS SELECT * FROM arrived WHERE created_timestamp < $1", [cut])
    base.execute(
        "CREATE TEMP TABLE moves AS SELECT * FROM t QUALIFY "
        "row_number() OVER (PARTITION BY transaction_id ORDER BY created_timestamp) = 1"
    )
    base.execute(
        "CREATE TEMP TABLE fraud AS SELECT transaction_id, reported FROM (SELECT transaction_id, "
        "created_timestamp AS reported, is_fraud, rank FROM words WHERE created_timestamp < $1 "
        "QUALIFY row_number() OVER (PARTITION BY transaction_id ORDER BY created_timestamp DESC, "
        "rank DESC, is_fraud DESC) = 1) WHERE is_fraud",
        [cut],
    )
    profiles: dict[str, dict[str, Any]] = {}

    def put(names: list[str], query: str, *arguments: Any) -> None:
        for key, *values in base.execute(query, arguments).fetchall():
            if key is not None:
                profiles.setdefault(key, {}).update(dict(zip(names, values, strict=True)))

    key, name = entity.key, entity.name
    for days in PROFILE_DAYS:
        low = cut - timedelta(days=days)
        window = "event_timestamp >= $1 AND event_timestamp < $2"
        put(
            [f"{name}_txn_count_{days}d", f"{name}_amount_sum_{days}d", f"{name}_amount_mean_{days}d"],
            f"SELECT {key}, count(*), sum(amount_reference), sum(amount_reference) / count(*) FROM moves "
            f"WHERE {window} GROUP BY 1", low, cut,
        )  # fmt: skip
        put(
            [f"{name}_amount_std_{days}d"],
            f"SELECT {key}, sqrt(avg((amount_reference - mean) ** 2)) FROM (SELECT {key}, amount_reference, "
            f"avg(amount_reference) OVER (PARTITION BY {key}) AS mean FROM moves WHERE {window}) GROUP BY 1",
            low, cut,
        )  # fmt: skip
        for party in entity.counterparties:
            other = next(each.key for each in ENTITIES if each.name == party)
            put(
                [f"{name}_distinct_{party}s_{days}d"],
                f"SELECT {key}, count(DISTINCT {other}) FROM moves WHERE {window} GROUP BY 1", low, cut,
            )  # fmt: skip
        put(
            [f"{name}_fraud_count_{days}d"],
            f"SELECT {key}, count(*) FROM moves JOIN fraud USING (transaction_id) "
            "WHERE reported >= $1 AND reported < $2 GROUP BY 1", low, cut,
        )  # fmt: skip
        delay = timedelta(days=_MATURITY_DAYS)
        put(
            [f"{name}_fraud_rate_{days}d"],
            f"SELECT {key}, avg((reported IS NOT NULL)::INT) FROM moves "
            f"LEFT JOIN fraud USING (transaction_id) WHERE {window} GROUP BY 1", low - delay, cut - delay,
        )  # fmt: skip
    _fraud_ages(put, entity, cut)
    if name in _WITH_LARGEST:
        put(
            [f"{name}_amount_max_30d"],
            f"SELECT {key}, max(amount_reference) FROM moves WHERE {window} GROUP BY 1", low, cut,
        )  # fmt: skip
    if name == "customer":
        _usual_place(put, cut - timedelta(days=max(PROFILE_DAYS)), cut)
    if name == "merchant":
        _peers(put, cut - timedelta(days=max(PROFILE_DAYS)), cut)
    return profiles


def _fraud_ages(put: Any, entity: Entity, cut: datetime) -> None:
    """Days are quarters: the interval between cuts is six hours."""
    key, name = entity.key, entity.name
    month, delay = timedelta(days=max(PROFILE_DAYS)), timedelta(days=_MATURITY_DAYS)
    ripe = "event_timestamp >= $1 AND event_timestamp < $2"
    put(
        [f"{name}_fraud_risk_30d"],
        # Every key has a profile if it has one at all in these 37 days or a newer report.
        f"SELECT {key}, count(reported) FILTER ({ripe}) / (count(*) FILTER ({ripe}) + 10) FROM moves "
        f"LEFT JOIN fraud USING (transaction_id) GROUP BY 1 "
        "HAVING count(*) FILTER (event_timestamp >= $1) > 0", cut - month - delay, cut - delay,
    )  # fmt: skip
    quarter = "floor(epoch(event_timestamp) / 21600)"
    put(
        [f"{name}_days_since_first_fraud_30d"],
        f"SELECT {key}, (floor(epoch($2::TIMESTAMPTZ) / 21600) - min({quarter})) / 4 FROM moves "
        "JOIN fraud USING (transaction_id) WHERE event_timestamp >= $1 GROUP BY 1", cut - month, cut,
    )  # fmt: skip
    put(
        [f"{name}_days_genuine_minus_fraud"],
        f"SELECT {key}, (max({quarter}) FILTER (reported IS NOT NULL) - coalesce(max({quarter}) FILTER ("
        "transaction_id NOT IN (SELECT transaction_id FROM words WHERE is_fraud AND created_timestamp < $3) "
        "AND event_timestamp < $2), floor(epoch($1::TIMESTAMPTZ) / 21600))) / 4 FROM moves "
        "LEFT JOIN fraud USING (transaction_id) WHERE event_timestamp >= $1 GROUP BY 1 "
        "HAVING count(reported) > 0", cut - month - delay, cut - delay, cut,
    )  # fmt: skip


def _usual_place(put: Any, low: datetime, cut: datetime) -> None:
    """The middle of points on the unit sphere, each rounded to a millionth."""
    put(
        ["customer_usual_latitude_30d", "customer_usual_longitude_30d"],
        "WITH points AS (SELECT customer_id, radians(latitude) AS north, radians(longitude) AS east "
        "FROM moves WHERE event_timestamp >= $1 AND event_timestamp < $2 "
        "AND latitude IS NOT NULL AND longitude IS NOT NULL), middles AS (SELECT customer_id, "
        "avg(round(cos(north) * cos(east), 6)) AS x, avg(round(cos(north) * sin(east), 6)) AS y, "
        "avg(round(sin(north), 6)) AS z FROM points GROUP BY 1) "
        "SELECT customer_id, degrees(asin(z / sqrt(x * x + y * y + z * z))), degrees(atan2(y, x)) "
        "FROM middles", low, cut,
    )  # fmt: skip


def _peers(put: Any, low: datetime, cut: datetime) -> None:
    recent = "(SELECT * FROM moves WHERE event_timestamp >= $1 AND event_timestamp < $2)"
    put(
        ["merchant_share_30d"],
        f"SELECT merchant_id, count(*) / (SELECT count(*) FROM {recent}) FROM {recent} GROUP BY 1", low, cut,
    )  # fmt: skip
    # In the test data a merchant keeps its category, so "the newest" needs no care here.
    put(
        [f"merchant_category_{name}_30d" for name in ("share", "amount_mean", "amount_std")],
        f"SELECT DISTINCT merchant_id, share, mean, std FROM {recent} JOIN (SELECT merchant_category, "
        f"count(*) / (SELECT count(*) FROM {recent}) AS share, avg(amount_reference) AS mean, "
        f"stddev_pop(amount_reference) AS std FROM {recent} GROUP BY 1) USING (merchant_category)", low, cut,
    )  # fmt: skip
