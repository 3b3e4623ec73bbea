"""The online store: Feast's Redis layout, written by one script that lets the newest win.

Stock Feast reads the stored timestamp and then writes: two writers race, and a slow batch can
replace what the stream wrote a moment ago. Here stream, batch and backfill share the Lua
script of `stores.redis_layout`, which compares and writes in one step.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

from feast.infra.key_encoding_utils import serialize_entity_key
from feast.infra.online_stores.redis import RedisOnlineStore, RedisOnlineStoreConfig, RedisType
from pydantic import Field, StrictStr

import feature_repo.registry  # noqa: F401  # Feast loads this module first: it names the registry's plugin
from feature_repo.declare import STREAM_TAG
from feature_repo.declared_columns import online_aggregates
from feature_repo.velocity_columns import VELOCITY_TAG, entity_of, online_figures
from fraud.features.entities import ENTITIES
from fraud.features.profiles import SERVED_PROFILES
from stores.declared import declared, state_feature
from stores.redis_clients import connect_any, connect_async
from stores.redis_layout import NEWEST_WINS, newest_wins_args
from stores.redis_url import RedisAddress, is_cluster, parse_redis_url
from stores.settings import settings

if TYPE_CHECKING:
    from feast import FeatureView, RepoConfig

#: Rows a script call writes: long enough to amortise the call, short enough to let reads in.
ROWS_PER_CALL: Final = 50
#: Script calls in one pipeline.
CALLS_PER_PIPELINE: Final = 40
#: By view, the features that serving reads side by side.
SIDE_BY_SIDE: Final = {entity.profile_view: SERVED_PROFILES[entity.name] for entity in ENTITIES}
_TYPES: Final = {
    "single": RedisType.redis, "sentinel": RedisType.redis_sentinel, "cluster": RedisType.redis_cluster,
}  # fmt: skip
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)

#: One row for Feast's writer: entity key, values by feature, event time, created time.
Row = tuple[Any, dict[str, Any], datetime, datetime | None]


class NewestWinsRedisOnlineStoreConfig(RedisOnlineStoreConfig):
    """Where Redis is; by default `TOLLGATE_REDIS_URL`."""

    type: StrictStr = "feature_repo.online_store.NewestWinsRedisOnlineStore"  # type: ignore[assignment]
    redis_url: StrictStr = Field(default_factory=lambda: settings().redis.url)
    """any Redis URL of `stores.redis_url`"""

    redis_type: RedisType = Field(default_factory=lambda: _TYPES[settings().redis.address.kind])


class NewestWinsRedisOnlineStore(RedisOnlineStore):
    """Feast's Redis online store with atomic newest-wins writes; reads are the stock ones."""

    def update(
        self,
        config: RepoConfig,
        tables_to_delete: Sequence[FeatureView],
        tables_to_keep: Sequence[FeatureView],
        entities_to_delete: Sequence[Any],
        entities_to_keep: Sequence[Any],
        partial: bool,
    ) -> None:
        """What ``feast apply`` calls when it has registered everything: write what the rooms read of it."""
        from feature_repo.collect import write_plan
        from feature_repo.store import apply_again_if_changed

        super().update(
            config, tables_to_delete, tables_to_keep, entities_to_delete, entities_to_keep, partial
        )
        write_plan()
        apply_again_if_changed()

    def _generate_hset_keys_for_features(
        self,
        feature_view: FeatureView,
        requested_features: list[str] | None = None,
        fv_name_override: str | None = None,
    ) -> tuple[list[str], list[Any]]:
        """What a view's hash is asked for: of a declared stream view its state, from which its aggregates as
        of now are made."""
        if VELOCITY_TAG in feature_view.tags and requested_features != [state_feature_of(feature_view)]:
            names = requested_features or [feature.name for feature in feature_view.features]
            _, keys = super()._generate_hset_keys_for_features(
                feature_view, [state_feature_of(feature_view)], fv_name_override
            )
            return [*names, f"_ts:{feature_view.name}"], keys
        if STREAM_TAG not in feature_view.tags:
            found: tuple[list[str], list[Any]] = super()._generate_hset_keys_for_features(
                feature_view, requested_features, fv_name_override
            )
            return found
        names = requested_features or [feature.name for feature in feature_view.features]
        _, keys = super()._generate_hset_keys_for_features(
            feature_view, [state_feature(feature_view.name)], fv_name_override
        )
        return [*names, f"_ts:{feature_view.name}"], keys

    def _convert_redis_values_to_protobuf(
        self, redis_values: Sequence[Any], feature_view: str, requested_features: list[str]
    ) -> list[tuple[datetime | None, dict[str, Any] | None]]:
        stamp = f"_ts:{feature_view}"
        entity = entity_of(feature_view)
        asked = [name for name in requested_features if name != stamp]
        if entity is not None and asked != [entity.state_feature]:
            rows = super()._convert_redis_values_to_protobuf(
                redis_values, feature_view, [entity.state_feature, stamp]
            )
            return online_figures(feature_view, asked, rows)
        if not any(layout.view == feature_view for layout in declared().layouts):
            found: list[tuple[datetime | None, dict[str, Any] | None]] = (
                super()._convert_redis_values_to_protobuf(redis_values, feature_view, requested_features)
            )
            return found
        stored = [state_feature(feature_view), stamp]
        rows = super()._convert_redis_values_to_protobuf(redis_values, feature_view, stored)
        return online_aggregates(feature_view, asked, rows)

    def online_write_batch(
        self,
        config: RepoConfig,
        table: FeatureView,
        data: list[Row],
        progress: Callable[[int], Any] | None,
    ) -> None:
        """Write rows of one view; a row older than what is stored changes nothing.

        The event timestamp is the version. An equal one is written again, so that a
        recomputed cut replaces itself.
        """
        client = self._get_client(config.online_store)
        clustered = is_cluster(_address(config.online_store))
        names = _stored_names(table)
        script = client.script_load(NEWEST_WINS)
        for calls in _pipelines(data, 1 if clustered else ROWS_PER_CALL):
            with client.pipeline(transaction=False) as pipe:
                for rows in calls:
                    keys = [_key(config, row) for row in rows]
                    # Not `evalsha`: a cluster's pipeline forbids it; every node has the script by now.
                    pipe.execute_command(
                        "EVALSHA", script, len(keys), *keys, *_arguments(table.name, names, rows)
                    )
                pipe.execute()
            if progress:
                progress(sum(len(rows) for rows in calls))

    async def online_write_batch_async(
        self,
        config: RepoConfig,
        table: FeatureView,
        data: list[Row],
        progress: Callable[[int], Any] | None,
    ) -> None:
        """`online_write_batch` on the asynchronous client."""
        client = await self._get_client_async(config.online_store)
        clustered = is_cluster(_address(config.online_store))
        names = _stored_names(table)
        script = await client.script_load(NEWEST_WINS)
        for calls in _pipelines(data, 1 if clustered else ROWS_PER_CALL):
            async with client.pipeline(transaction=False) as pipe:
                for rows in calls:
                    keys = [_key(config, row) for row in rows]
                    # Not `evalsha`: a cluster's pipeline forbids it; every node has the script by now.
                    pipe.execute_command(
                        "EVALSHA", script, len(keys), *keys, *_arguments(table.name, names, rows)
                    )
                await pipe.execute()
            if progress:
                progress(sum(len(rows) for rows in calls))

    def _get_client(self, online_store_config: RedisOnlineStoreConfig) -> Any:
        if self._client is None:
            self._client = connect_any(_address(online_store_config))
        return self._client

    async def _get_client_async(self, online_store_config: RedisOnlineStoreConfig) -> Any:
        if self._client_async is None:
            self._client_async = connect_async(_address(online_store_config))
        return self._client_async


def state_feature_of(view: FeatureView) -> str:
    """The feature of a standard velocity view that is stored."""
    entity = entity_of(view.name)
    assert entity is not None
    return entity.state_feature


def _stored_names(table: FeatureView) -> list[str]:
    """The features of a view that are stored: of a stream view its state, which has all of them."""
    if VELOCITY_TAG in table.tags:
        return [state_feature_of(table)]
    if STREAM_TAG in table.tags:
        return [state_feature(table.name)]
    return [feature.name for feature in table.features]


def _address(config: RedisOnlineStoreConfig) -> RedisAddress:
    assert isinstance(config, NewestWinsRedisOnlineStoreConfig)
    return parse_redis_url(config.redis_url)


def _pipelines(data: Sequence[Row], rows_per_call: int) -> Iterator[list[Sequence[Row]]]:
    """Rows grouped by script call, calls grouped by pipeline."""
    step = rows_per_call * CALLS_PER_PIPELINE
    for start in range(0, len(data), step):
        chunk = data[start : start + step]
        yield [chunk[at : at + rows_per_call] for at in range(0, len(chunk), rows_per_call)]


def _key(config: RepoConfig, row: Row) -> bytes:
    version = config.entity_key_serialization_version
    return serialize_entity_key(row[0], entity_key_serialization_version=version) + config.project.encode()


def _arguments(view: str, names: Sequence[str], rows: Sequence[Row]) -> list[bytes | str | int]:
    encoded = []
    for _, values, event, _ in rows:
        # Feast hands naive times over as UTC.
        aware = event if event.tzinfo is not None else event.replace(tzinfo=UTC)
        encoded.append(
            (
                (aware - _EPOCH) // _MICROSECOND,
                [values[name].SerializeToString() if name in values else b"" for name in names],
            )
        )
    together = SIDE_BY_SIDE.get(view, ())
    return newest_wins_args(view, names, encoded, together if set(together) <= set(names) else ())
