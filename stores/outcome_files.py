"""Outcomes in the lake: their columns, and the files of a day.

`lake/outcomes/date=YYYY-MM-DD/` holds outcomes by the date of their transaction's event, so that all of one
transaction lie in one folder. Each row says what counted as spent before and after it: whoever reads rows
in the order in which they became known has to know no rule (`stores.outcomes` has it). Apart from it, as the
service knows outcomes and does without Arrow.
"""

from __future__ import annotations

from datetime import date
from pathlib import Path
from typing import Final

import pyarrow as pa
import pyarrow.parquet as pq

from stores.lake_files import files_of_date
from stores.outcomes import OUTCOMES

_TIME: Final = pa.timestamp("us", tz="UTC")
#: An outcome in the lake. `event_timestamp` is its transaction's event time, `created_timestamp` when states
#: learnt of it, `reported_timestamp` when its sender did. `amount_minor` is the outcome's own, null for the
#: whole; `spent_before` and `spent_after` are reference cents of the transaction. `outcome_id` tells
#: outcomes of one kind and transaction apart; `client` sent it. The ids are the transaction's.
OUTCOME_SCHEMA: Final = pa.schema(
    [
        ("transaction_id", pa.string()),
        ("outcome_id", pa.string()),
        ("kind", pa.string()),
        ("event_timestamp", _TIME),
        ("created_timestamp", _TIME),
        ("reported_timestamp", _TIME),
        ("customer_id", pa.string()),
        ("card_id", pa.string()),
        ("merchant_id", pa.string()),
        ("terminal_id", pa.string()),
        ("device_id", pa.string()),
        ("ip", pa.string()),
        ("currency", pa.string()),
        ("amount_minor", pa.int64()),
        ("reason", pa.string()),
        ("client", pa.string()),
        ("spent_before", pa.int64()),
        ("spent_after", pa.int64()),
    ]
)


def outcomes_on(root: Path, day: date) -> pa.Table:
    """The outcomes of transactions of `day` (UTC, by event time)."""
    folder = root / OUTCOMES / f"date={day:%Y-%m-%d}"
    files = files_of_date(folder) if folder.is_dir() else []
    tables = [pq.ParquetFile(path).read() for path in files]
    return pa.concat_tables(tables).cast(OUTCOME_SCHEMA) if tables else OUTCOME_SCHEMA.empty_table()
