"""The training set: transactions, features as they were known, labels as they are known.

    python -m training.dataset --from 2018-07-01T00:00:00Z --to 2018-08-01T00:00:00Z --out DIR

Features come from one FeatureService by Feast's point-in-time join with known-at filtering;
labels count only if they were known at the training cut (`--as-of`). The folder holds one
parquet file per day and `manifest.json`; the same inputs give the same bytes, and a run that
was interrupted goes on with the pieces it lacks.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import shutil
import time
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as pads
import pyarrow.parquet as pq

from feature_repo.asof import EmptyEntitiesError
from feature_repo.sources import EVENT
from feature_repo.spark import print_progress, spark_session
from feature_repo.store import open_store
from fraud.features.entities import FEATURE_SERVICE
from stores.declared import declared, served_vector
from stores.settings import settings
from training.dataset_manifest import Sampling, describe_inputs, features_of, manifest_of, saved_name
from training.dataset_rows import (
    DESCRIPTIVE,
    LABEL_COLUMNS,
    ORDER,
    entity_rows,
    entity_table,
    thinning,
    transaction_folders,
)

if TYPE_CHECKING:
    from feast import FeatureStore
    from pyspark.sql import DataFrame, SparkSession

    from feature_repo.retrieval import AsOfRetrievalJob

#: Event time joined at once: a longer range goes piece by piece, each kept when done. Each reads the
#: month before it again.
CHUNK: Final = timedelta(days=184)
MANIFEST: Final = "manifest.json"
DEFAULT_SEED: Final = 20180725
_NOTHING: Final = "no transactions between {} and {}: load the lake first"


class DatasetError(ValueError):
    """A training set that cannot be built; the text says what to do."""


@dataclass(frozen=True, slots=True)
class TrainingSet:
    """What was built: `frauds` are known frauds, `mature` rows whose label is final.

    `name` is the set's name as a Feast saved dataset.
    """

    folder: Path
    name: str
    rows: int
    frauds: int
    mature: int
    seconds: float


def build_dataset(
    start: datetime,
    end: datetime,
    *,
    as_of: datetime,
    out: Path,
    negatives: int | None = None,
    seed: int = DEFAULT_SEED,
    spark: SparkSession | None = None,
    service: str = FEATURE_SERVICE,
) -> TrainingSet:
    """Build the set of transactions that were decided in ``[start, end)``, as known at `as_of`.

    A row is fraud if its latest label known at `as_of` says so, and `label_mature` once
    `label_maturity_days` have passed since the transaction. With `negatives`, all known frauds
    and about that many genuine rows are kept, each genuine one standing for `weight` of them;
    which ones depends on `seed` and the transaction id alone. The set becomes a saved dataset
    of the feature store, read back by ``FeatureStore.get_saved_dataset``. `service` names the feature
    service whose features it has. Raises DatasetError.
    """
    started = time.monotonic()
    if not start < end <= as_of:
        raise DatasetError("a training set needs from < to, and as-of not before to")
    try:
        features_of(service)
    except ValueError as error:
        raise DatasetError(str(error)) from None
    if not transaction_folders(start, end):
        raise DatasetError(_NOTHING.format(start.isoformat(), end.isoformat()))
    spark = spark or spark_session("training set")
    keep = thinning(spark, start, end, as_of, negatives)
    inputs = describe_inputs(start, end, as_of, Sampling(negatives, keep, seed), service)
    parts = out / ".parts"
    _forget_other_inputs(parts, inputs)
    chunks = list(_chunks(start, end))
    for number, (low, high) in enumerate(chunks):
        if not (parts / f"{number:04d}").exists():
            _build_chunk(spark, (low, high, as_of), (keep, seed), parts / f"{number:04d}", service)
        print_progress(
            f"training set: {low:%Y-%m-%d} to {high:%Y-%m-%d} joined ({number + 1} of {len(chunks)})"
        )
    files = _collect(parts, len(chunks), out)
    built = _summary(out, saved_name(inputs), files, started)
    if not built.rows:
        raise DatasetError(_NOTHING.format(start.isoformat(), end.isoformat()))
    figures = {name: value for name, value in asdict(built).items() if name in ("rows", "frauds", "mature")}
    manifest = manifest_of(inputs, figures, files, out)
    (out / MANIFEST).write_text(json.dumps(manifest, indent=1) + "\n")
    _register(built, manifest, (start, end))
    shutil.rmtree(parts)
    return built


def rebuild(transactions: pa.Table, spark: SparkSession | None = None) -> pa.Table:
    """What a point-in-time join gives for `transactions` (lake columns), in their order.

    Columns: transaction_id and the served vector. Parity holds served vectors against it.
    """
    spark = spark or spark_session("rebuild")
    scratch = settings().home / "training" / ".rebuild"
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir(parents=True)
    try:
        rows = entity_table(transactions)
        step = -(-max(1, rows.num_rows) // spark.sparkContext.defaultParallelism)
        for place, at in enumerate(range(0, rows.num_rows, step)):
            pq.write_table(rows.slice(at, step), scratch / f"{place:04d}.parquet")
        job = _historical(spark.read.parquet(str(scratch)), None)
        found = job.to_spark_df(["transaction_id", *served_vector()]).toArrow()
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    if found.num_rows != transactions.num_rows:
        raise DatasetError(f"{transactions.num_rows} rows went in and {found.num_rows} came out")
    places = pc.index_in(
        transactions.column("transaction_id").combine_chunks(),
        found.column("transaction_id").combine_chunks(),
    )
    return found.take(places)


def _historical(entities: DataFrame, service: str | None) -> AsOfRetrievalJob:
    """Feast's point-in-time join of a feature service, or (None) of everything that is served."""
    from feature_repo.retrieval import AsOfRetrievalJob

    store = open_store()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        job = store.get_historical_features(
            entity_df=entities,  # type: ignore[arg-type]  # a Spark frame too, in Spark stores
            features=store.get_feature_service(service) if service else _served(store),
            filter_by_created_timestamp=True,
        )
    assert isinstance(job, AsOfRetrievalJob)
    return job


def _served(store: FeatureStore) -> list[str]:
    """What all services together serve, as references of features."""
    own = declared()
    wanted = set(own.vector)
    refs: dict[str, None] = {}
    for name in (FEATURE_SERVICE, *[each.name for each in own.declarations.services]):
        for view in store.get_feature_service(name).feature_view_projections:
            for feature in view.features:
                if feature.name in wanted:
                    refs[f"{view.name_to_use()}:{feature.name}"] = None  # type: ignore[no-untyped-call]
    return list(refs)


def _register(built: TrainingSet, manifest: dict[str, Any], span: tuple[datetime, datetime]) -> None:
    """Make the finished set a saved dataset of the feature store."""
    from feature_repo.saved_dataset import SavedFolder, register

    store = open_store()
    beside = [name for name in (*ORDER, *DESCRIPTIVE, *LABEL_COLUMNS) if name != EVENT]
    kept = ("as_of", "label_maturity_days", "rows", "frauds", "mature", "definitions")
    register(
        store, built.name, SavedFolder(built.folder.resolve(), "date"),
        service=store.get_feature_service(manifest["feature_service"]), columns=beside, span=span,
        tags={name: str(manifest[name]) for name in kept},
    )  # fmt: skip


def _build_chunk(
    spark: SparkSession, span: tuple[datetime, datetime, datetime], thin: tuple[float, int], folder: Path,
    service: str,
) -> None:  # fmt: skip
    """Join one chunk into `folder`/date=…; the folder appears only when it is whole."""
    from pyspark.sql import functions as F

    unfinished = folder.with_name(f"{folder.name}.unfinished")
    entities = entity_rows(spark, *span, *thin).withColumn(
        "date", F.to_date("event_timestamp").cast("string")
    )
    unfinished.mkdir(parents=True, exist_ok=True)
    columns = [*ORDER, *DESCRIPTIVE, *features_of(service), *LABEL_COLUMNS, "date"]
    # A span without transactions is a part without rows.
    with contextlib.suppress(EmptyEntitiesError):
        _historical(entities, service).write_parquet(unfinished, columns, partition="date", order=ORDER)
    unfinished.replace(folder)


def _chunks(start: datetime, end: datetime) -> Iterator[tuple[datetime, datetime]]:
    while start < end:
        # Whole days, so that a day's rows lie in one chunk and one file.
        following = min(
            (start + CHUNK).astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0), end
        )
        yield start, following
        start = following


def _forget_other_inputs(parts: Path, inputs: dict[str, Any]) -> None:
    """Drop parts that were built from anything else than `inputs`."""
    note = parts / "inputs.json"
    text = json.dumps(inputs, sort_keys=True)
    if not note.exists() or note.read_text() != text:
        shutil.rmtree(parts, ignore_errors=True)
        parts.mkdir(parents=True)
        note.write_text(text)


def _collect(parts: Path, chunks: int, out: Path) -> list[Path]:
    """Move every day's file of every chunk to its final name; remove what another run left."""
    files: list[Path] = []
    for number in range(chunks):
        for folder in sorted((parts / f"{number:04d}").glob("date=*")):
            for place, part in enumerate(sorted(folder.glob("part-*.parquet"))):
                target = out / folder.name / f"rows-{number:04d}-{place:02d}.parquet"
                target.parent.mkdir(parents=True, exist_ok=True)
                part.replace(target)
                files.append(target)
    for stale in set(out.glob("date=*/*.parquet")) - set(files):
        stale.unlink()
    return sorted(files)


def _summary(out: Path, name: str, files: Sequence[Path], started: float) -> TrainingSet:
    counts = {"rows": 0, "is_fraud": 0, "label_mature": 0}
    if files:
        source = pads.dataset([str(path) for path in files], format="parquet")
        for batch in source.to_batches(columns=["is_fraud", "label_mature"]):
            counts["rows"] += batch.num_rows
            for flag in ("is_fraud", "label_mature"):
                counts[flag] += pc.sum(batch.column(flag)).as_py() or 0
    seconds = time.monotonic() - started
    return TrainingSet(out, name, counts["rows"], counts["is_fraud"], counts["label_mature"], seconds)


def main() -> None:
    """The command line; exits with a sentence on input that cannot be used."""
    parser = argparse.ArgumentParser(prog="python -m training.dataset", description=__doc__)
    parser.add_argument(
        "--from", dest="start", type=datetime.fromisoformat, required=True, help="first event time"
    )
    parser.add_argument(
        "--to", dest="end", type=datetime.fromisoformat, required=True, help="end, not included"
    )
    parser.add_argument("--as-of", type=datetime.fromisoformat, help="what was known then (default: --to)")
    parser.add_argument("--out", type=Path, required=True, help="folder of the set")
    parser.add_argument("--negatives", type=int, help="genuine rows to keep, about (default: all)")
    parser.add_argument(
        "--seed", type=int, default=DEFAULT_SEED, help="chooses the genuine rows that are kept"
    )
    parser.add_argument(
        "--service", default=FEATURE_SERVICE, help="feature service whose features the set has"
    )
    chosen = parser.parse_args()
    times = [chosen.start, chosen.end, chosen.as_of or chosen.end]
    start, end, as_of = [at if at.tzinfo else at.replace(tzinfo=UTC) for at in times]
    try:
        built = build_dataset(
            start,
            end,
            as_of=as_of,
            out=chosen.out,
            negatives=chosen.negatives,
            seed=chosen.seed,
            service=chosen.service,
        )
    except DatasetError as error:
        parser.error(str(error))
    print(
        f"{built.rows:,} rows, {built.frauds:,} known frauds, {built.mature:,} mature, "
        f"in {built.seconds:.1f} s: {built.folder}, saved dataset {built.name}"
    )


if __name__ == "__main__":
    main()
