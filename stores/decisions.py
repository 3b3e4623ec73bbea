"""The decision log's columns and places, once: journal, parquet, audit, backtest, drift and parity.

A decision is a row of `COLUMNS`. In the journal it is a msgpack array in that order (`RECORD`), with
times as microseconds since 1970 UTC, the vector as float64 little-endian in the order of the served row
(`stores.declared`), a team's own attributes as a JSON object, and maps as lists of pairs sorted by key. In
parquet (`parquet_schema`) the vector is one float64 column per feature, and the record's own code stands at
the end as `hash`.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Final

from fraud.contract.transaction import Transaction
from fraud.features.feature_list import VECTOR

if TYPE_CHECKING:
    import pyarrow as pa

VECTOR_COLUMN: Final = "vector"

#: Each column and what it holds, in the order of a record. `event_timestamp` is when the payment counts,
#: `lateness_ms` how much later that is than it happened, `stated_timestamp` when its caller says it happened,
#: `created_timestamp` when it was known (what was known by then had been seen), `decided_at` when it was
#: answered. `replayed` says that the past was replayed, `overlaid` when those payments were known that were
#: laid over the states that the row was computed from.
COLUMNS: Final[dict[str, str]] = {
    "series": "text", "sequence": "whole", "transaction_id": "text", "client": "text",
    "event_timestamp": "time",
    "created_timestamp": "time", "stated_timestamp": "time", "lateness_ms": "whole", "replayed": "flag",
    "overlaid": "times", "customer_id": "text", "card_id": "text", "merchant_id": "text",
    "terminal_id": "text", "device_id": "text", "ip": "text", "amount_minor": "whole", "currency": "text",
    "amount_reference": "whole", "channel": "text", "merchant_category": "text", "country": "text",
    "latitude": "number", "longitude": "number", "attributes": "text", VECTOR_COLUMN: "vector",
    "score": "number",
    "decision": "text", "variant": "text", "model_version": "text", "rules": "texts", "rules_version": "text",
    "risk_factors": "texts", "reason_codes": "texts",
    "feature_status": "texts by name", "view_timestamps": "times by name", "degraded": "texts",
    "shadow_scores": "numbers by name", "latency_ms": "number", "decided_at": "time", "key": "text",
    "previous_hash": "hash",
}  # fmt: skip
#: The code of a record, which stands before it in the journal and behind it in parquet.
HASH: Final = "hash"

#: Fields of a record, in order.
RECORD: Final = tuple(COLUMNS)
TIMES: Final = frozenset(name for name, kind in COLUMNS.items() if kind == "time")
MAPS: Final = frozenset(name for name, kind in COLUMNS.items() if kind.endswith("by name"))
#: Fields of the transaction that the log holds under the contract's own names.
TRANSACTION_FIELDS: Final = tuple(
    name for name in RECORD if name in Transaction.__struct_fields__ and name != "attributes"
)
#: Columns that are no features, the folders' `date` and `hour` and a label that was joined among them.
NOT_FEATURES: Final = frozenset({*RECORD, HASH, "is_fraud", "date", "hour"} - {VECTOR_COLUMN})


@lru_cache(maxsize=8)
def parquet_schema(features: tuple[str, ...] = VECTOR) -> pa.Schema:
    """The columns of a file of the log, whose rows have these features."""
    import pyarrow as pa  # not in a worker, which only writes records

    text, number, time = pa.string(), pa.float64(), pa.timestamp("us", tz="UTC")
    types: dict[str, pa.DataType] = {
        "text": text, "whole": pa.int64(), "number": number, "time": time, "texts": pa.list_(text),
        "flag": pa.bool_(), "times": pa.list_(time),
        "texts by name": pa.map_(text, text), "times by name": pa.map_(text, time),
        "numbers by name": pa.map_(text, number), "hash": pa.binary(32),
    }  # fmt: skip
    fields: list[tuple[str, pa.DataType]] = []
    for name, kind in COLUMNS.items():
        fields += [(feature, number) for feature in features] if kind == "vector" else [(name, types[kind])]
    return pa.schema([*fields, (HASH, types["hash"])])


def decisions_folder(home: Path) -> Path:
    """Where the log's files are: `date=YYYY-MM-DD/hour=HH/<segment>.parquet`, by `decided_at`, UTC."""
    return home / "decisions"


def journal_folder(home: Path) -> Path:
    """Where segments are written before they become files."""
    return decisions_folder(home) / "journal"
