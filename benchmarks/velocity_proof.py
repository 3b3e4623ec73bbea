"""Every velocity feature of many transactions, through flow, log and Feast, beside the oracle's.

Events went through the flow, Spark rebuilt the velocity log from the arrival log that the flow
wrote, and Feast's point-in-time join read it. The oracle goes through the raw events with plain
lists. Counts, sums, distinct values, novelty and seconds must be equal; means, deviations and
scores within 1e-9 of each other, since they are divided and rooted in another order.
"""

from __future__ import annotations

import gc
import json
import math
import random
import time
from collections.abc import Iterator
from datetime import datetime
from itertools import groupby
from operator import attrgetter
from typing import Any, Final

import pyarrow as pa

from fraud.features.entities import ENTITIES, VELOCITY_TTL, WINDOWS
from fraud.features.feature_list import entity_features
from fraud.state.observation import Observation, observe
from fraud.state.velocity import DISTINCT_LIMIT
from stores.lake import read_transactions, transactions_from_table
from stores.settings import settings
from tests.fraud.oracle import Oracle

_TTL_MS: Final = int(VELOCITY_TTL.total_seconds() * 1000)
_ROUNDED: Final = ("_mean_", "_std_", "_zscore_")
#: The oracle does not compute distances; the handbook's transactions have no locations.
#: Windows that the proof holds means, deviations and distinct counts over.
_MOMENTS: Final = tuple([place for place, window in enumerate(WINDOWS) if window.name in ("1h", "24h")])
_PLACES: Final = ("_km_from_last", "_speed_kmh")
#: Sample of differences that the report shows.
_SHOWN: Final = 20
NAMES: Final = tuple(
    [
        feature.name
        for entity in ENTITIES
        for feature in entity_features(entity)
        if not feature.name.endswith(_PLACES)
    ]
)


def prove(raw: pa.Table, start: datetime, end: datetime, rows: int) -> dict[str, Any]:
    """Compare `rows` random transactions of the flow's lake; `raw` are all events as they were published.

    Writes results/bench/velocity_proof.json and returns what it says. The settings' home is the
    flow's: its lake holds the arrival log.
    """
    from feature_repo.spark import spark_session
    from feature_repo.store import apply_definitions
    from feature_repo.velocity_log import build_velocity_log
    from training.dataset import rebuild

    apply_definitions()
    spark = spark_session("velocity proof")
    build_velocity_log(start, end, spark)
    arrived = read_transactions(settings().lake)
    chosen = sorted(random.Random(1).sample(range(arrived.num_rows), min(rows, arrived.num_rows)))
    asked = arrived.take(pa.array(chosen))
    began = time.perf_counter()
    joined = rebuild(asked, spark).select(["transaction_id", *NAMES])
    join_seconds = time.perf_counter() - began
    spark.stop()
    wrong: dict[str, int] = {}
    shown: list[dict[str, object]] = []
    present = compared = 0
    found = joined.to_pylist()
    # The oracle keeps every event of every entity: millions of lasting objects without cycles.
    gc.disable()
    expected = dict(told(raw, set(asked.column("transaction_id").to_pylist())))
    gc.enable()
    for row in found:
        name = row.pop("transaction_id")
        features = expected[name]
        compared += len(features)
        present += sum([not math.isnan(value) for value in features.values()])
        for feature, value in features.items():
            if not same(row[feature], value, exact=not any(word in feature for word in _ROUNDED)):
                wrong[feature] = wrong.get(feature, 0) + 1
                if len(shown) < _SHOWN:
                    shown.append({"transaction": name, feature: row[feature], "oracle": value})
    report: dict[str, Any] = {
        "events": raw.num_rows,
        "arrived": arrived.num_rows,
        "transactions": len(found),
        "features": len(NAMES),
        "compared": compared,
        "compared_not_missing": present,
        "wrong": sum(wrong.values()),
        "wrong_by_feature": wrong,
        "examples": shown,
        "join_seconds": round(join_seconds, 1),
    }
    path = settings().results / "bench" / "velocity_proof.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(report, indent=2) + "\n")
    return report


def told(raw: pa.Table, asked: set[str]) -> Iterator[tuple[str, dict[str, float]]]:
    """What the oracle says of each transaction in `asked`: id and features.

    History knows no order within a millisecond: those of one do not see each other.
    """
    oracles: dict[tuple[int, str | None], Oracle] = {}
    for _, moment in groupby(transactions_from_table(raw), key=attrgetter("event_ms")):
        together = [(transaction.transaction_id, observe(transaction)) for transaction in moment]
        for name, seen in together:
            if name in asked:
                features: dict[str, float] = {}
                for place, value in enumerate(seen.ids):
                    features |= _features(place, oracles.get((place, value)), seen)
                yield name, features
        for _, seen in together:
            for place, value in enumerate(seen.ids):
                if value is not None:
                    oracles.setdefault((place, value), Oracle(place)).add(seen)


def _features(place: int, oracle: Oracle | None, seen: Observation) -> dict[str, float]:
    """The features of one entity of a transaction, from what the oracle has been told before it."""
    entity = ENTITIES[place]
    name = entity.name
    names = [feature.name for feature in entity_features(entity) if not feature.name.endswith(_PLACES)]
    requested = seen.tracked[place]
    if oracle is None:
        return dict.fromkeys(names, math.nan)
    answer = oracle.read(seen.event_ms, requested, _TTL_MS)
    if not answer.present:
        return dict.fromkeys(names, math.nan)
    windows = [window.name for window in WINDOWS]
    found: dict[str, float] = {}
    for at, window in enumerate(windows):
        found[f"{name}_txn_count_{window}"] = answer.count[at]
        found[f"{name}_amount_sum_{window}"] = answer.total[at]
    for at in _MOMENTS:
        count, total = answer.count[at], answer.total[at]
        mean = total / count if count else math.nan
        # Of integers, so that nothing is lost before the root.
        spread = math.sqrt(count * answer.squares[at] - total * total) / count if count else math.nan
        found[f"{name}_amount_mean_{windows[at]}"] = mean
        found[f"{name}_amount_std_{windows[at]}"] = spread
    found[f"{name}_amount_zscore_24h"] = (seen.amount - mean) / spread if spread > 0 else math.nan
    for table, other in enumerate(entity.counterparties):
        for at in _MOMENTS:
            found[f"{name}_distinct_{other}s_{windows[at]}"] = min(answer.distinct[table][at], DISTINCT_LIMIT)
    found[f"{name}_seconds_since_last_txn"] = answer.since_last
    found[f"{name}_seconds_since_first_txn"] = min(answer.since_first, _TTL_MS / 1000)
    for table, other in enumerate(entity.tracked):
        suffix = "_24h" if table < len(entity.counterparties) else ""
        new = math.nan if requested[table] == 0 else float(not answer.seen[table])
        found[f"{name}_new_{other}{suffix}"] = new
    assert sorted(found) == sorted(names)
    return found


def same(have: float | None, want: float, *, exact: bool) -> bool:
    """Whether both are missing, or equal (unless `exact`: within 1e-9)."""
    if have is None or math.isnan(have):
        return math.isnan(want)
    return have == want if exact else math.isclose(have, want, rel_tol=1e-9, abs_tol=1e-6)
