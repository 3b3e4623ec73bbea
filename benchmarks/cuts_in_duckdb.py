"""The profiles of one cut in DuckDB, one pass per entity: what the Spark job is measured against."""

from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import Path
from typing import Final

import duckdb
import pyarrow as pa

from fraud.features.entities import ENTITIES, ENTITY_BY_NAME, PROFILE_DAYS, Entity
from fraud.features.profiles import PROFILE_FEATURES
from stores.labels import strength_sql
from stores.settings import settings

#: Nothing that any window can hold is older: the longest, the label maturity, and a week for late reports.
LOOK_BACK: Final = timedelta(days=max(PROFILE_DAYS) + 14)
_STEP: Final = 21_600  # seconds between cuts: ages are counted in these


def connect(lake: Path, threads: int) -> duckdb.DuckDBPyConnection:
    """A connection that sees the lake's transactions and labels as they are in their files."""
    base = duckdb.connect()
    base.execute(f"SET TimeZone = 'UTC'; SET threads = {threads}")
    for kind in ("transactions", "labels"):
        pattern = f"{lake}/{kind}/date=*/*.parquet"
        base.execute(
            f"CREATE VIEW {kind} AS SELECT * FROM read_parquet('{pattern}', hive_partitioning = true)"
        )
    return base


def profiles_in_duckdb(base: duckdb.DuckDBPyConnection, cut: datetime) -> dict[str, pa.Table]:
    """Per entity the profiles as of `cut`: its key and every feature, by key."""
    first = (cut - LOOK_BACK).date()
    base.execute(
        f"""
        CREATE OR REPLACE TEMP TABLE words AS SELECT transaction_id, created_timestamp AS reported, is_fraud,
            {strength_sql()} AS strength
          FROM labels WHERE created_timestamp < $cut AND date >= '{first}'
          QUALIFY strength >= max(strength) OVER (PARTITION BY transaction_id ORDER BY reported, strength);
        CREATE OR REPLACE TEMP TABLE moves AS
          SELECT m.*, reported, suspect.transaction_id IS NOT NULL AS suspect,
            floor(epoch(event_timestamp) / {_STEP}) AS step
          FROM (SELECT * FROM transactions WHERE created_timestamp < $cut AND date >= '{first}'
                QUALIFY row_number() OVER (PARTITION BY transaction_id ORDER BY created_timestamp) = 1) m
          LEFT JOIN (SELECT * FROM (SELECT * FROM words QUALIFY row_number() OVER (PARTITION BY transaction_id
                     ORDER BY reported DESC, strength DESC, is_fraud DESC) = 1)
                     WHERE is_fraud) USING (transaction_id)
          LEFT JOIN (SELECT DISTINCT transaction_id FROM words WHERE is_fraud) suspect USING (transaction_id)
        """.replace("$cut", _literal(cut))
    )
    return {entity.name: base.sql(_query(entity, cut)).to_arrow_table() for entity in ENTITIES}


def _literal(at: datetime) -> str:
    return f"TIMESTAMPTZ '{at.isoformat()}'"


def _within(column: str, low: datetime, high: datetime) -> str:
    return f"{column} >= {_literal(low)} AND {column} < {_literal(high)}"


def _query(entity: Entity, cut: datetime) -> str:
    delay = timedelta(days=settings().history.label_maturity_days)
    month = timedelta(days=max(PROFILE_DAYS))
    name = entity.name
    columns: dict[str, str] = {}
    for days in PROFILE_DAYS:
        low = cut - timedelta(days=days)
        seen, told = _within("event_timestamp", low, cut), _within("reported", low, cut)
        ripe = _within("event_timestamp", low - delay, cut - delay)
        columns |= {
            f"{name}_txn_count_{days}d": f"count(*) FILTER ({seen})",
            f"{name}_amount_sum_{days}d": f"coalesce(sum(amount_reference) FILTER ({seen}), 0)",
            f"{name}_amount_mean_{days}d": f"avg(amount_reference) FILTER ({seen})",
            f"{name}_amount_std_{days}d": f"stddev_pop(amount_reference) FILTER ({seen})",
            f"{name}_fraud_count_{days}d": f"count(*) FILTER ({told})",
            f"{name}_fraud_rate_{days}d": f"avg((reported IS NOT NULL)::INT) FILTER ({ripe})",
        }
        for other in entity.counterparties:
            columns[f"{name}_distinct_{other}s_{days}d"] = (
                f"count(DISTINCT {ENTITY_BY_NAME[other].key}) FILTER ({seen})"
            )
    seen = _within("event_timestamp", cut - month, cut)
    ripe = _within("event_timestamp", cut - month - delay, cut - delay)
    held = f"event_timestamp >= {_literal(cut - month - delay)}"
    edge, now = (f"floor(epoch({_literal(at)}) / {_STEP})" for at in (cut - month - delay, cut))
    columns |= {
        f"{name}_amount_max_30d": f"max(amount_reference) FILTER ({seen})",
        f"{name}_fraud_risk_30d": f"count(reported) FILTER ({ripe}) / (count(*) FILTER ({ripe}) + 10)",
        f"{name}_days_since_first_fraud_30d":
            f"({now} - min(step) FILTER (reported IS NOT NULL AND {seen})) / 4",
        f"{name}_days_genuine_minus_fraud":
            f"(max(step) FILTER (reported IS NOT NULL AND {held}) - coalesce(max(step) FILTER "
            f"(NOT suspect AND {ripe}), {edge})) / 4",
    }  # fmt: skip
    x, y, z = (f"sum(round(1e6 * {point})) FILTER ({seen})" for point in _DIRECTION)
    columns |= {
        "customer_usual_latitude_30d": f"degrees(atan2({z}, sqrt({x} ** 2 + {y} ** 2)))",
        "customer_usual_longitude_30d": f"degrees(atan2({y}, {x}))",
    }
    mine = "key"
    if name == "merchant":
        mine, columns = _with_peers(columns, seen)
    asked = [feature.name for feature in PROFILE_FEATURES[name]]
    missing = [each for each in asked if each not in columns]
    if missing:
        raise ValueError(f"no SQL for {', '.join(missing)}: add it here")
    chosen = ", ".join(f"({columns[each]})::DOUBLE AS {each}" for each in asked)
    recent = " OR ".join(
        f"({_within(column, cut - month - back, cut)})"
        for column, back in (("event_timestamp", delay), ("reported", timedelta(0)))
    )
    peers = "LEFT JOIN peers ON category = merchant_category" if name == "merchant" else ""
    with_peers = f"WITH {_PEERS.format(seen=seen)}" if name == "merchant" else ""
    return (
        f"{with_peers} SELECT {entity.key} AS {mine}, {chosen} FROM moves {peers} "
        f"WHERE {entity.key} IS NOT NULL GROUP BY 1 HAVING count(*) FILTER ({recent}) > 0 ORDER BY 1"
    )


_DIRECTION: Final = (
    "cos(radians(latitude)) * cos(radians(longitude))",
    "cos(radians(latitude)) * sin(radians(longitude))",
    "sin(radians(latitude)) + 0 * longitude",
)
_PEERS: Final = """peers AS (SELECT merchant_category AS category, count(*) AS peer_count,
  avg(amount_reference) AS peer_mean, stddev_pop(amount_reference) AS peer_std
  FROM moves WHERE {seen} AND merchant_category IS NOT NULL GROUP BY 1)"""


def _with_peers(columns: dict[str, str], seen: str) -> tuple[str, dict[str, str]]:
    """A merchant's columns with those of its category; a merchant is taken to keep its category."""
    everyone = f"(SELECT count(*) FROM moves WHERE {seen})"
    recent = f"count(*) FILTER ({seen})"
    return "key", columns | {
        "merchant_share_30d": f"nullif({recent}, 0) / {everyone}",
        "merchant_category_share_30d": f"max(peer_count) FILTER ({seen}) / {everyone}",
        "merchant_category_amount_mean_30d": f"max(peer_mean) FILTER ({seen})",
        "merchant_category_amount_std_30d": f"max(peer_std) FILTER ({seen})",
    }
