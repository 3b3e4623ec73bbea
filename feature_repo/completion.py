"""The last stage of a point-in-time join, in Spark's workers: fetch, compute, choose, write.

Rows come narrow: what the entity rows carried, and the values of views that Spark itself had to
join. A worker finds and fetches the columns of parquet views, runs the on-demand views and keeps
the columns that were asked for; either Spark takes them back, or the worker writes them to parquet
at once, which spares the rows a way through the JVM, a shuffle and a sort at their full width.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from feature_repo.declared_columns import STATE
from feature_repo.newest_rows import NewestRows
from feature_repo.on_demand import Call, compute, on_demand_calls
from feature_repo.parquet_view import ParquetView, fetch

if TYPE_CHECKING:
    from feast import OnDemandFeatureView
    from pyspark.sql import DataFrame

#: Rows fetched and computed at once: enough for numpy, and so few that their wide columns stay at
#: about so many bytes (the state of a hot key has 12 kB, and every row has one for each entity).
LEAST_STEP: Final = 2_048
LARGEST_STEP: Final = 32_768
STEP_BYTES: Final = 64 << 20
#: Tasks that write a partitioned result: few, since each begins with the files of the days before.
TASKS_A_CORE: Final = 3
#: Rows of a row group of a written file; fixed, so that equal rows give equal bytes.
GROUP_ROWS: Final = 65_536
_TASK: Final = "__task"
_WRITTEN: Final = "file string, rows bigint"

Work = Callable[[Iterator[pa.RecordBatch]], Iterator[pa.RecordBatch]]


@dataclass(frozen=True, slots=True)
class Completion:
    """How joined rows become the result: `columns` are the result's names with Spark types."""

    views: tuple[ParquetView, ...]
    calls: tuple[Call, ...]
    columns: dict[str, str]

    def frame(self, joined: DataFrame) -> DataFrame:
        """The result as a lazy frame."""
        names = list(self.columns)
        if not self.views and not self.calls:
            return joined.select(*names)
        joined = self._in_order_of_time(joined)
        schema = ", ".join(f"`{name}` {kind}" for name, kind in self.columns.items())
        return joined.mapInArrow(_give(self), schema)

    def write(
        self,
        joined: DataFrame,
        folder: Path,
        order: Sequence[str],
        partition: str | None = None,
        values: Sequence[str] = (),
    ) -> int:
        """Write the result under `folder`, replacing parquet files there; return the row count.

        With `partition` (a string column), each of its `values` gets a folder ``partition=value``
        with one file. Rows of a file are in `order`, whose columns the joined rows must have.
        """
        if partition:
            joined = _in_runs(joined, partition, sorted(values)).sortWithinPartitions(partition, *order)
        else:
            joined = self._in_order_of_time(joined)
            joined = joined.sortWithinPartitions(*order) if order else joined
        written = joined.mapInArrow(_write(self, folder, partition), _WRITTEN).collect()
        kept = {folder / row["file"] for row in written}
        for path in folder.glob("**/*.parquet"):
            if path not in kept:  # of an earlier result, or of a task that was run again
                path.unlink()
        return sum(row["rows"] for row in written)

    def tables(self, batches: Iterator[pa.RecordBatch]) -> Iterator[pa.Table]:
        """The result's rows for `batches` of joined rows, in their order."""
        searches = [NewestRows(view) for view in self.views]
        step = LEAST_STEP
        for batch in batches:
            if not batch.num_rows:
                continue
            found = [search.find(batch) for search in searches]
            at = 0
            while at < batch.num_rows:
                table = pa.Table.from_batches([batch.slice(at, step)])
                fetched = [
                    fetch(view, places.slice(at, step), table)
                    for view, places in zip(self.views, found, strict=True)
                ]
                at += step
                wide = sum([column.nbytes for each in fetched for column in each.values()]) / table.num_rows
                step = int(min(max(STEP_BYTES / max(wide, 1.0), LEAST_STEP), LARGEST_STEP))
                for name, column in [item for each in fetched for item in each.items()]:
                    table = table.append_column(name, column)
                added: dict[str, Any] = {}
                for call in self.calls:
                    computed = compute(call, table)
                    added |= computed
                    if call.feeds_others:
                        for name, column in computed.items():
                            table = table.append_column(name, column)
                names = list(self.columns)
                columns = [added[name] if name in added else table.column(name) for name in names]
                yield pa.table(columns, names=names).combine_chunks()

    def _in_order_of_time(self, joined: DataFrame) -> DataFrame:
        """`joined` in a few tasks a core, each with a run of the entity rows' time."""
        if not self.views:
            return joined
        tasks, time = TASKS_A_CORE * joined.sparkSession.sparkContext.defaultParallelism, self.views[0].time
        return joined.repartitionByRange(tasks, time).sortWithinPartitions(time)


def completion(
    joined: DataFrame,
    outputs: Sequence[str],
    parquet: Sequence[ParquetView],
    on_demand: Sequence[OnDemandFeatureView],
    feature_refs: Sequence[str],
    full_feature_names: bool,
    wanted: Sequence[str] | None,
    first: Sequence[Call] = (),
) -> Completion:
    """The completion of `joined`, whose views have `outputs`; the columns `wanted`, or all. The calls `first`
    make outputs from columns that are not part of the result."""
    from pyspark.sql.pandas.types import from_arrow_type
    from pyspark.sql.types import DoubleType

    kinds: dict[str, Any] = {field.name: field.dataType for field in joined.schema.fields}
    kinds |= {output: from_arrow_type(kind) for view in parquet for _, output, kind in view.columns}
    hidden = {column for call in first for name, column in call.inputs if name == STATE}
    known = [name for name in kinds if name not in outputs and name not in hidden]
    kinds |= {column: DoubleType() for call in first for _, column in call.outputs}
    calls, computed = on_demand_calls(on_demand, [*known, *outputs], feature_refs, full_feature_names)
    kinds |= computed
    names = [*known, *outputs, *computed] if wanted is None else list(wanted)
    return Completion(tuple(parquet), (*first, *calls), {name: kinds[name].simpleString() for name in names})


def _in_runs(joined: DataFrame, partition: str, values: list[str]) -> DataFrame:
    """`joined` in a few tasks a core, each with a run of the sorted `values`.

    Values that follow each other (dates) need much the same files of a view: a task that had any
    few of them would read most of the view's files for each.
    """
    from pyspark.sql import functions as F

    session = joined.sparkSession
    length = max(1, -(-len(values) // (TASKS_A_CORE * session.sparkContext.defaultParallelism)))
    tasks = max(1, -(-len(values) // length))
    # A shuffle goes by hashes: of some numbers, one that it sends to each task.
    drawn = session.range(64 * tasks).select("id", F.pmod(F.hash("id"), F.lit(tasks)).alias("task"))
    number = {row["task"]: row["id"] for row in drawn.collect()}
    by_value = F.create_map(
        *[F.lit(each) for place, value in enumerate(values) for each in (value, number[place // length])]
    )
    task = F.coalesce(by_value[F.col(partition)], F.lit(number[0])).cast("long")
    return joined.withColumn(_TASK, task).repartition(tasks, _TASK).drop(_TASK)


def _give(result: Completion) -> Work:
    def work(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for table in result.tables(batches):
            yield from table.to_batches()

    return work


def _write(result: Completion, folder: Path, partition: str | None) -> Work:
    def work(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        from pyspark import TaskContext

        task = TaskContext.get()
        assert task is not None
        file = f"part-{task.partitionId():05d}-{task.taskAttemptId()}.parquet"
        written: list[tuple[str, int]] = []
        for value, tables in _runs(result.tables(batches), partition):
            name = f"{partition}={quote(value, safe='')}/{file}" if partition else file
            written.append((name, _write_file(tables, folder / name)))
        names, rows = zip(*written, strict=True) if written else ((), ())
        yield pa.RecordBatch.from_arrays(
            [pa.array(names, pa.string()), pa.array(rows, pa.int64())], names=["file", "rows"]
        )

    return work


def _runs(tables: Iterator[pa.Table], partition: str | None) -> Iterator[tuple[str, Iterator[pa.Table]]]:
    """Consecutive rows by their value of `partition`, without that column."""
    if partition is None:
        first = next(tables, None)
        if first is not None:
            yield "", _chain(first, tables)
        return
    held: list[pa.Table] = []
    current: str | None = None
    for table in tables:
        ends = pc.run_end_encode(table.column(partition).combine_chunks())
        low = 0
        for value, high in zip(ends.values.to_pylist(), ends.run_ends.to_pylist(), strict=True):
            if value != current and held:
                yield str(current), iter(held)
                held = []
            current = value
            held.append(table.slice(low, high - low).drop_columns([partition]))
            low = high
    if held:
        yield str(current), iter(held)


def _chain(first: pa.Table, rest: Iterator[pa.Table]) -> Iterator[pa.Table]:
    yield first
    yield from rest


def _write_file(tables: Iterator[pa.Table], path: Path) -> int:
    """Write `tables` to `path` in row groups of one size; return the row count."""
    path.parent.mkdir(parents=True, exist_ok=True)
    held = next(tables)
    rows = 0
    with pq.ParquetWriter(path, held.schema, compression="zstd") as writer:
        for table in tables:
            held = pa.concat_tables([held, table])
            while held.num_rows >= GROUP_ROWS:
                writer.write_table(held.slice(0, GROUP_ROWS), row_group_size=GROUP_ROWS)
                rows, held = rows + GROUP_ROWS, held.slice(GROUP_ROWS)
        if held.num_rows or not rows:
            writer.write_table(held, row_group_size=GROUP_ROWS)
            rows += held.num_rows
    return rows
