"""Point-in-time joins by Spark, as one ordered pass per key: for views that are no parquet files.

Rows of a view and the entity rows are ordered together by time, a view row at the moment it is
both valid and known; each entity row then takes the newest view row before it. That is what
Feast's definition asks for (newest event time among rows with event and known-at at or before
the entity's timestamp, nothing older than the ttl, edge included) without comparing every row
of a key with every other, so a hot key costs what its rows cost.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from itertools import groupby
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from pyspark.sql import Column, DataFrame

#: The column that numbers entity rows while they are apart; no feature may have this name.
ROW: Final = "__row"


@dataclass(frozen=True, slots=True)
class View:
    """A view to join: join keys as the entity rows name them, output columns and their types.

    `rows` holds keys, `event`, `known` and outputs, none of the first three null; None means
    that the view has no data at all. A `ttl` of zero means no limit.
    """

    name: str
    keys: tuple[str, ...]
    outputs: tuple[str, ...]
    kinds: tuple[str, ...]
    ttl: timedelta
    rows: DataFrame | None


class EmptyEntitiesError(ValueError):
    """There is no entity row to find features for."""


def number_rows(entities: DataFrame) -> DataFrame:
    """`entities` with `ROW`, fixed for good: it must not change between two reads."""
    from pyspark.sql import functions as F

    return entities.withColumn(ROW, F.monotonically_increasing_id()).localCheckpoint()


def join_as_of(entities: DataFrame, time: str, views: list[View]) -> DataFrame:
    """`entities` (numbered) with the outputs of every view, null where nothing was known."""
    from pyspark.sql import functions as F

    joined = entities
    by_keys = sorted([view for view in views if view.rows is not None], key=lambda view: view.keys)
    for keys, group in groupby(by_keys, key=lambda view: view.keys):
        joined = joined.join(_newest(entities, time, keys, list(group)), ROW, "left")
    for view in views:
        if view.rows is None:
            for name, kind in zip(view.outputs, view.kinds, strict=True):
                joined = joined.withColumn(name, F.lit(None).cast(kind))
    return joined.select(
        ROW,
        *[name for name in entities.columns if name != ROW],
        *[name for view in views for name in view.outputs],
    )


def _newest(entities: DataFrame, time: str, keys: tuple[str, ...], views: list[View]) -> DataFrame:
    """Per entity row with all `keys`, the outputs of the views on those keys, in one pass."""
    from pyspark.sql import Window
    from pyspark.sql import functions as F

    names = [f"k{place}" for place in range(len(keys))]
    asked = entities.where(F.col(time).isNotNull())
    for key in keys:
        asked = asked.where(F.col(key).isNotNull())
    both = asked.select(
        *[F.col(key).alias(name) for key, name in zip(keys, names, strict=True)],
        F.col(time).alias("at"),
        F.lit(1).alias("asks"),
        F.col(ROW),
    )
    for place, view in enumerate(views):
        assert view.rows is not None
        # Rows equal in both times are the same fact twice: the largest wins, whatever the order.
        newest = F.struct(
            "event", "known", *[F.col(output).alias(f"f{i}") for i, output in enumerate(view.outputs)]
        )
        rows = view.rows.select(
            *[F.col(key).alias(name) for key, name in zip(keys, names, strict=True)],
            F.greatest("event", "known").alias("at"),
            F.lit(0).alias("asks"),
            newest.alias(f"v{place}"),
        )
        both = both.unionByName(rows, allowMissingColumns=True)
    # Spark sorts by the first eight bytes before it compares whole rows: keys often begin alike,
    # their hashes do not.
    both = both.withColumn("hash", F.xxhash64(*names))
    until_here = (
        Window.partitionBy("hash", *names).orderBy("at", "asks").rowsBetween(Window.unboundedPreceding, 0)
    )
    answered = both.select(
        ROW,
        "at",
        "asks",
        *[F.max(f"v{place}").over(until_here).alias(f"v{place}") for place in range(len(views))],
    ).where("asks = 1")
    outputs: list[Column] = [F.col(ROW)]
    for place, view in enumerate(views):
        fresh = F.lit(True)
        if view.ttl:
            oldest = F.col("at") - F.lit(view.ttl)
            fresh = F.col(f"v{place}.event") >= oldest
        outputs += [
            F.when(fresh, F.col(f"v{place}.f{i}")).alias(output) for i, output in enumerate(view.outputs)
        ]
    return answered.select(*outputs)
