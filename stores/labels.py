"""Which label counts: the newest verdict of the strongest source, the same for every reader.

Sources differ in what they know. The issuer (and the chargeback, which is his) outranks an analyst, who
outranks the customer, who outranks a program. A weaker source never overrules a stronger one, however new
it is: only a source of the same strength takes a verdict back (a dispute that was won is the issuer's).
At one instant the stronger source counts, and of equals fraud.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import pyarrow as pa
import pyarrow.compute as pc

if TYPE_CHECKING:
    from pyspark.sql import Column, DataFrame

#: Strength by source; a source that is not here has none.
STRENGTH: Final = {"chargeback": 4, "issuer": 4, "analyst": 3, "import": 3, "customer": 2, "automatic": 1}
_RANK: Final = "_strength"


def latest_labels(labels: pa.Table) -> pa.Table:
    """The label that counts of each transaction, by known-at, then transaction id.

    `labels` has transaction_id, created_timestamp, is_fraud and source, and holds what was known then.
    """
    known = pa.array(list(STRENGTH), pa.string())
    ranks = pa.array(list(STRENGTH.values()), pa.int8())
    places = pc.index_in(labels.column("source").cast(pa.string()), known)
    ranked = labels.append_column(_RANK, pc.fill_null(pc.take(ranks, places), 0))
    order = ["transaction_id", _RANK, "created_timestamp", "is_fraud"]
    ranked = ranked.sort_by([(name, "ascending") for name in order]).combine_chunks()
    if ranked.num_rows > 1:
        ids = ranked.column("transaction_id").combine_chunks()
        last = pc.not_equal(ids.slice(0, len(ids) - 1), ids.slice(1))
        last = last.combine_chunks() if isinstance(last, pa.ChunkedArray) else last
        ranked = ranked.filter(pa.concat_arrays([last, pa.array([True])]))
    chosen = ranked.drop_columns([_RANK])
    return chosen.sort_by([("created_timestamp", "ascending"), ("transaction_id", "ascending")])


def strength(source: Column) -> Column:
    """A source's strength, in Spark."""
    from pyspark.sql import functions as F

    found = F.lit(0)
    for name, rank in STRENGTH.items():
        found = F.when(source == F.lit(name), F.lit(rank)).otherwise(found)
    return found


def strength_sql(source: str = "source") -> str:
    """A source's strength, as SQL."""
    cases = " ".join(f"WHEN '{name}' THEN {rank}" for name, rank in STRENGTH.items())
    return f"CASE {source} {cases} ELSE 0 END"


def effective_words(words: DataFrame) -> DataFrame:
    """The labels, in Spark, that changed a verdict or could: none that a stronger source preceded.

    With them alone, the newest known at any time is the one that counts then.
    """
    from pyspark.sql import Window
    from pyspark.sql import functions as F

    until = (
        Window.partitionBy("transaction_id")
        .orderBy("created_timestamp", _RANK)
        .rangeBetween(Window.unboundedPreceding, Window.currentRow)
    )
    ranked = words.withColumn(_RANK, strength(F.col("source")))
    return (
        ranked.withColumn("_strongest", F.max(_RANK).over(until))
        .where(F.col(_RANK) >= F.col("_strongest"))
        .drop(_RANK, "_strongest")
    )
