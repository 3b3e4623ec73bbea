"""Point-in-time joins: equal to stock Feast's, and blind to what was not known yet."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from feast import (
    Entity,
    FeatureStore,
    FeatureView,
    Field,
    OnDemandFeatureView,
    RepoConfig,
    RequestSource,
    ValueType,
)
from feast.errors import SavedDatasetLocationAlreadyExists
from feast.infra.offline_stores.contrib.spark_offline_store.spark import SparkOfflineStoreConfig
from feast.infra.offline_stores.contrib.spark_offline_store.spark_source import SparkSource
from feast.types import Bytes, Float64, Int64, String
from pyspark.sql import SparkSession

from feature_repo.newest_rows import NewestRows
from feature_repo.offline_store import AsOfSparkOfflineStoreConfig
from feature_repo.parquet_view import Found, MovedRowsError, ParquetView, fetch
from feature_repo.retrieval import AsOfRetrievalJob, RowCountError
from feature_repo.saved_dataset import SavedFolder

TIME = datetime(2026, 3, 1, tzinfo=UTC)
STAMP = pa.timestamp("us", tz="UTC")
FEATURES = ["spend:mean", "spend:state", "risk:rate", "ratio:ratio", "ratio:size"]


def ratio(inputs: dict[str, Any]) -> dict[str, Any]:
    pairs = zip(inputs["amount"], inputs["mean"], strict=True)
    return {
        "ratio": [float(amount) if mean is None or mean != mean else amount - mean for amount, mean in pairs],
        "size": [0 if state is None else len(state) for state in inputs["state"]],
    }


RATIO = """def ratio(inputs):
    pairs = zip(inputs["amount"], inputs["mean"], strict=True)
    return {
        "ratio": [float(amount) if mean is None or mean != mean else amount - mean for amount, mean in pairs],
        "size": [0 if state is None else len(state) for state in inputs["state"]],
    }
"""


def definitions(folder: Path) -> list[Any]:
    customer = Entity(name="customer", join_keys=["customer_id"], value_type=ValueType.STRING)
    shop = Entity(name="shop", join_keys=["shop_id"], value_type=ValueType.STRING)

    def source(name: str) -> SparkSource:
        return SparkSource(
            name=f"{name}_rows", path=str(folder / name), file_format="parquet",
            timestamp_field="event_timestamp", created_timestamp_column="created_timestamp",
        )  # fmt: skip

    spend = FeatureView(
        name="spend", entities=[customer], ttl=timedelta(days=2), source=source("spend"),
        schema=[
            Field(name="customer_id", dtype=String), Field(name="mean", dtype=Float64),
            Field(name="state", dtype=Bytes),
        ],
    )  # fmt: skip
    risk = FeatureView(
        name="risk", entities=[customer, shop], ttl=timedelta(0), source=source("risk"),
        schema=[
            Field(name="customer_id", dtype=String), Field(name="shop_id", dtype=String),
            Field(name="rate", dtype=Float64),
        ],
    )  # fmt: skip
    again = FeatureView(
        name="again", entities=[customer, shop], ttl=timedelta(0), schema=risk.schema,
        source=SparkSource(
            name="again_rows", query=f"SELECT * FROM parquet.`{folder / 'risk'}`",
            timestamp_field="event_timestamp", created_timestamp_column="created_timestamp",
        ),
    )  # fmt: skip
    request = RequestSource(name="request", schema=[Field(name="amount", dtype=Float64)])
    on_demand = OnDemandFeatureView(
        name="ratio", sources=[request, spend], mode="python", udf=ratio, udf_string=RATIO,
        schema=[Field(name="ratio", dtype=Float64), Field(name="size", dtype=Int64)],
    )  # fmt: skip
    return [customer, shop, spend, risk, again, on_demand]


def view_rows(
    random: np.random.Generator, rows: int, keys: dict[str, int], columns: dict[str, Any]
) -> pa.Table:
    """Rows with shared times, late corrections, repeats, null values and null keys."""
    event = random.integers(0, 7 * 24, rows) * 3_600_000_000
    known = event + np.where(random.random(rows) < 0.3, random.integers(0, 60, rows) * 3_600_000_000, 0)
    start = int(TIME.timestamp()) * 1_000_000
    ids = {
        name: [
            None if random.random() < 0.02 else f"{name[0]}{value}"
            for value in random.integers(0, count, rows)
        ]
        for name, count in keys.items()
    }
    table = pa.table(
        {
            **{name: pa.array(values, pa.string()) for name, values in ids.items()},
            "event_timestamp": pa.array(event + start).cast(STAMP),
            "created_timestamp": pa.array(known + start).cast(STAMP),
            **columns,
        }
    )
    return pa.concat_tables([table, table.slice(0, rows // 20)])  # written twice


def sometimes(random: np.random.Generator, values: list[Any]) -> list[Any]:
    """A tenth of `values` gone."""
    return [None if random.random() < 0.1 else value for value in values]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("views")
    random = np.random.default_rng(5)
    spend = view_rows(
        random, 600, {"customer_id": 8},
        {
            "mean": pa.array(sometimes(random, random.normal(size=600).tolist()), pa.float64()),
            "state": pa.array(sometimes(random, [random.bytes(5) for _ in range(600)]), pa.binary()),
        },
    )  # fmt: skip
    risk = view_rows(random, 400, {"customer_id": 4, "shop_id": 3}, {"rate": pa.array(random.random(400))})
    for name, table in (("spend", spend), ("risk", risk)):
        (folder / name).mkdir()
        pq.write_table(without_ambiguity(table), folder / name / "rows.parquet")
    return folder


def without_ambiguity(table: pa.Table) -> pa.Table:
    """Rows equal in key and both times get equal values: stock picks among them by chance."""
    frame = table.to_pandas()
    keys = [name for name in frame.columns if name.endswith("_id")]
    group = [*keys, "event_timestamp", "created_timestamp"]
    values = [name for name in frame.columns if name not in group]
    first = frame.groupby(group, dropna=False, sort=False).cumcount() == 0
    merged = frame[group].merge(frame.loc[first, group + values], on=group, how="left")
    return pa.Table.from_pandas(merged, schema=table.schema, preserve_index=False)


def store(folder: Path, home: Path, offline: Any) -> FeatureStore:
    config = RepoConfig(
        project="joins", provider="local", registry=str(home / f"{offline.type}.db"), offline_store=offline,
        online_store=None, entity_key_serialization_version=3,
    )  # fmt: skip
    opened = FeatureStore(config=config)
    opened.apply(definitions(folder), skip_feature_view_validation=True)
    return opened


@pytest.fixture(scope="module")
def ours(
    spark: SparkSession, folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[FeatureStore]:
    yield store(folder, tmp_path_factory.mktemp("ours"), AsOfSparkOfflineStoreConfig())


@pytest.fixture(scope="module")
def stock(
    spark: SparkSession, folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[FeatureStore]:
    yield store(folder, tmp_path_factory.mktemp("stock"), SparkOfflineStoreConfig(type="spark"))


def entity_rows(rows: int, seed: int) -> pd.DataFrame:
    """Rows on the hour, where views have their times, so that ties and ttl edges are common."""
    random = np.random.default_rng(seed)
    hours = random.integers(0, 9 * 24, rows)
    return pd.DataFrame(
        {
            "number": np.arange(rows),
            "event_timestamp": [TIME + timedelta(hours=int(hour)) for hour in hours],
            "customer_id": [f"c{value}" for value in random.integers(0, 10, rows)],
            "shop_id": [f"s{value}" for value in random.integers(0, 4, rows)],
            "amount": random.random(rows),
        }
    )


def comparable(frame: pd.DataFrame) -> pd.DataFrame:
    frame = frame.sort_values("number").reset_index(drop=True)
    frame["state"] = [None if value is None else bytes(value) for value in frame["state"]]
    return frame[sorted(frame.columns)]


def test_the_join_equals_stock_feast_with_ties_ttl_edges_repeats_corrections_and_nulls(
    ours: FeatureStore, stock: FeatureStore
) -> None:
    rows = entity_rows(500, 1)
    found = ours.get_historical_features(rows, FEATURES, filter_by_created_timestamp=True).to_df()
    assert found["number"].tolist() == rows["number"].tolist()
    # Stock gives a row once for each repeat of the view row that it matched.
    expected = stock.get_historical_features(rows, FEATURES, filter_by_created_timestamp=True).to_df()
    expected = expected.drop_duplicates("number")
    assert len(expected) == len(rows)
    pd.testing.assert_frame_equal(comparable(found), comparable(expected), check_dtype=False)
    assert found["mean"].notna().any() and found["mean"].isna().any()


def test_rows_from_sql_and_full_names_give_the_same_values(
    ours: FeatureStore, spark: SparkSession, tmp_path: Path
) -> None:
    rows = entity_rows(80, 2)
    pq.write_table(
        pa.Table.from_pandas(rows, preserve_index=False), tmp_path / "rows.parquet", coerce_timestamps="us"
    )
    plain = ours.get_historical_features(rows, FEATURES).to_df()
    named = ours.get_historical_features(
        f"SELECT * FROM parquet.`{tmp_path}`", FEATURES, full_feature_names=True
    ).to_df()
    named = named.sort_values("number").reset_index(drop=True)
    for view, feature in (name.split(":") for name in FEATURES):
        pd.testing.assert_series_equal(named[f"{view}__{feature}"], plain[feature], check_names=False)


def test_a_source_that_is_a_query_gives_what_its_files_give(ours: FeatureStore) -> None:
    # Workers look rows up in files; Spark joins what is no file.
    found = ours.get_historical_features(
        entity_rows(200, 9), ["risk:rate", "again:rate"], full_feature_names=True
    ).to_df()
    pd.testing.assert_series_equal(found["risk__rate"], found["again__rate"], check_names=False)
    assert found["risk__rate"].notna().any()


def test_values_are_refused_when_the_file_is_no_longer_what_the_join_saw(tmp_path: Path) -> None:
    at = int(TIME.timestamp()) * 1_000_000
    rows = pa.table({"id": ["a", "b"], "at": pa.array([at, at]).cast(STAMP), "value": [1.0, 2.0]})
    pq.write_table(rows, tmp_path / "rows.parquet")
    view = parquet_view(tmp_path)

    def fetched(key: str, row: int, time: int) -> list[float | None]:
        found = Found(np.array([0, -1]), np.array([row, -1]), np.array([time, -1]))
        return fetch(view, found, pa.table({"id": [key, "c"]}))["value"].to_pylist()

    assert fetched("b", 1, at) == [2.0, None]
    for other in (("a", 1, at), ("b", 1, at + 1), ("b", 2, at)):
        with pytest.raises(MovedRowsError, match="run the join again"):
            fetched(*other)
    (tmp_path / "rows.parquet").unlink()
    with pytest.raises(MovedRowsError, match="run the join again"):
        NewestRows(view).find(pa.table({"id": ["a"], "time": pa.array([at]).cast(STAMP)}))


def parquet_view(folder: Path, *, ttl: timedelta = timedelta(0)) -> ParquetView:
    """A view of the files in `folder`, of which those in subfolders day=YYYY-MM-DD follow event time."""
    files = sorted(folder.glob("**/*.parquet"))
    return ParquetView(
        name="v", time="time", keys=(("id", "id"),), event="at", known="known",
        columns=(("value", "value", pa.float64()),), ttl_us=ttl // timedelta(microseconds=1),
        partition="%Y-%m-%d",
        files=tuple([(f"file://{path}", path.parent.name.partition("=")[2]) for path in files]),
    )  # fmt: skip


@pytest.mark.parametrize("ttl", [timedelta(days=3), timedelta(0)])
@pytest.mark.parametrize("ordered", [True, False])
def test_batches_find_the_newest_rows_whatever_their_order_and_the_files(
    tmp_path: Path, ttl: timedelta, ordered: bool
) -> None:
    random = np.random.default_rng(11)
    start, hour, count = int(TIME.timestamp()) * 1_000_000, 3_600_000_000, 3_000
    event = start + random.integers(0, 20 * 24, count) * hour
    known = event + np.where(random.random(count) < 0.3, random.integers(0, 100, count) * hour, 0)
    key = [f"k{number}" for number in random.integers(0, 40, count)]
    # Rows equal in key and both times are one fact: they have one value.
    value = [float(hash(row) % 1_000_003) for row in zip(key, event.tolist(), known.tolist(), strict=True)]
    day = (event - start) // (24 * hour)
    for number in range(20):
        of_day = np.flatnonzero(day == number)
        folder = tmp_path / f"day={TIME + timedelta(days=number):%Y-%m-%d}"
        folder.mkdir()
        for part, places in enumerate(np.array_split(of_day, 2)):
            unit = pa.timestamp("ms" if part else "us", tz="UTC")
            rows = {
                "id": [key[place] for place in places],
                "at": pa.array(event[places]).cast(STAMP).cast(unit), "known": pa.array(known[places]).cast(STAMP),
                "value": [value[place] for place in places],
            }  # fmt: skip
            pq.write_table(pa.table(rows), folder / f"{part}.parquet")
    view = parquet_view(tmp_path, ttl=ttl)
    asked = start + random.integers(-24, 22 * 24, 2_000) * hour
    asked = np.sort(asked) if ordered else asked
    asking = [f"k{number}" for number in random.integers(0, 42, 2_000)]
    search = NewestRows(view)
    found: list[float | None] = []
    for at in range(0, 2_000, 130):
        batch = pa.table({"id": asking[at : at + 130], "time": pa.array(asked[at : at + 130]).cast(STAMP)})
        found += fetch(view, search.find(batch), batch)["value"].to_pylist()
    facts = list(zip(key, event.tolist(), known.tolist(), value, strict=True))
    oldest = view.ttl_us or 1 << 62
    expected = []
    for name, time in zip(asking, asked.tolist(), strict=True):
        seen = [
            fact[1:]
            for fact in facts
            if fact[0] == name and time - oldest <= fact[1] <= time and fact[2] <= time
        ]
        expected.append(max(seen)[2] if seen else None)
    assert found == expected
    assert 0 < sum(one is None for one in found) < 1_000


def test_an_entity_row_without_its_key_keeps_its_place_and_gets_nulls(ours: FeatureStore) -> None:
    rows = entity_rows(20, 3)
    rows.loc[4, "customer_id"] = None
    found = ours.get_historical_features(rows, FEATURES).to_df()
    assert len(found) == 20
    assert found.loc[4, ["mean", "state", "rate"]].isna().all()


def test_the_filter_on_known_at_cannot_be_turned_off(ours: FeatureStore) -> None:
    rows = entity_rows(200, 4)
    with_filter = ours.get_historical_features(rows, FEATURES, filter_by_created_timestamp=True).to_df()
    without = ours.get_historical_features(rows, FEATURES, filter_by_created_timestamp=False).to_df()
    pd.testing.assert_frame_equal(with_filter, without)


def test_a_result_goes_to_parquet_without_passing_through_the_driver(
    ours: FeatureStore, tmp_path: Path
) -> None:
    job = ours.get_historical_features(entity_rows(60, 5), FEATURES)
    assert isinstance(job, AsOfRetrievalJob)
    assert job.write_parquet(tmp_path / "out", ["number", "mean", "ratio"]) == 60
    written = pq.read_table(tmp_path / "out").sort_by("number")
    assert written.column_names == ["number", "mean", "ratio"]
    assert written["mean"].to_pylist() == job.to_arrow()["mean"].to_pylist()


def test_a_result_kept_as_a_saved_dataset_is_read_back_by_its_name(
    ours: FeatureStore, tmp_path: Path
) -> None:
    job = ours.get_historical_features(entity_rows(60, 8), FEATURES)
    (tmp_path / "manifest.json").write_text("{}")
    ours.create_saved_dataset(job, "kept", SavedFolder(tmp_path), tags={"asked_by": "a test"})
    again = FeatureStore(config=ours.config).get_saved_dataset("kept")
    assert again.storage == SavedFolder(tmp_path) and again.tags == {"asked_by": "a test"}
    columns = ["customer_id", "shop_id", "event_timestamp", "mean", "rate", "ratio", "size"]
    found, expected = again.to_df()[columns], job.to_df()[columns]
    expected["event_timestamp"] = expected["event_timestamp"].dt.tz_localize(None)
    found["event_timestamp"] = found["event_timestamp"].dt.tz_localize(None)
    pd.testing.assert_frame_equal(
        found.sort_values(columns, ignore_index=True),
        expected.sort_values(columns, ignore_index=True),
        check_dtype=False,
    )
    with pytest.raises(SavedDatasetLocationAlreadyExists):
        ours.create_saved_dataset(job, "kept", SavedFolder(tmp_path))


def test_a_lost_row_is_an_error(ours: FeatureStore, monkeypatch: pytest.MonkeyPatch) -> None:
    job = ours.get_historical_features(entity_rows(10, 6), FEATURES)
    monkeypatch.setattr(job, "_rows", 11)
    with pytest.raises(RowCountError, match="11 entity rows went in and 10 came out"):
        job.to_arrow()


def test_a_view_without_any_data_gives_nulls(ours: FeatureStore, folder: Path) -> None:
    (folder / "risk" / "rows.parquet").rename(folder / "away")
    try:
        found = ours.get_historical_features(entity_rows(10, 7), FEATURES).to_df()
    finally:
        (folder / "away").rename(folder / "risk" / "rows.parquet")
    assert found["rate"].isna().all() and len(found) == 10
