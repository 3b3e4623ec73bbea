"""What Feast's registry says, read without running anything that stands in it.

Feast's own readers turn stored rows into objects, and on the way they `exec` a view's source text, unpickle
its body (dill) and import whatever module a source, a storage or an infrastructure object names: whoever
writes the registry runs code in its readers. Here the rows stay protocol buffers, which are data. Jobs that
compute features (Spark, `feast materialize`) must run the stored functions: docs/security.md says what
that asks of the registry's writers.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from feature_repo.registry import registry_url

if TYPE_CHECKING:
    from feast.protos.feast.core.Entity_pb2 import EntitySpecV2
    from feast.protos.feast.core.FeatureService_pb2 import FeatureServiceSpec
    from feast.protos.feast.core.FeatureView_pb2 import FeatureViewSpec
    from feast.protos.feast.core.OnDemandFeatureView_pb2 import OnDemandFeatureViewSpec

#: Bytes of all definitions of one project that are read at most; ours are about 100 kB.
LARGEST: Final = 64_000_000


class RegistryError(ValueError):
    """A registry that cannot be read; the text names no address and no stored text."""


@dataclass(frozen=True, slots=True)
class Definitions:
    """One project's definitions by name."""

    services: Mapping[str, FeatureServiceSpec]
    views: Mapping[str, FeatureViewSpec]
    on_demand: Mapping[str, OnDemandFeatureViewSpec]
    entities: Mapping[str, EntitySpecV2]


def stored_definitions(project: str) -> Definitions:
    """The definitions of `project` in the registry of the settings; raise `RegistryError`."""
    from feast.infra.registry import sql
    from feast.protos.feast.core.Entity_pb2 import Entity
    from feast.protos.feast.core.FeatureService_pb2 import FeatureService
    from feast.protos.feast.core.FeatureView_pb2 import FeatureView
    from feast.protos.feast.core.OnDemandFeatureView_pb2 import OnDemandFeatureView
    from google.protobuf.message import DecodeError
    from sqlalchemy import Table, create_engine, func, select
    from sqlalchemy.exc import SQLAlchemyError

    tables: list[tuple[Table, str, Any]] = [
        (sql.feature_services, "feature_service_proto", FeatureService),
        (sql.feature_views, "feature_view_proto", FeatureView),
        (sql.on_demand_feature_views, "feature_view_proto", OnDemandFeatureView),
        (sql.entities, "entity_proto", Entity),
    ]
    found: list[dict[str, Any]] = []
    try:
        engine = create_engine(registry_url())
        with engine.connect() as connection:
            for table, column, kind in tables:
                mine = table.c.project_id == project
                size = connection.execute(select(func.sum(func.length(table.c[column]))).where(mine)).scalar()
                if (size or 0) > LARGEST:
                    raise RegistryError(f"{table.name} holds more than {LARGEST} bytes")
                rows = connection.execute(select(table.c[column]).where(mine)).scalars()
                specs = [kind.FromString(row).spec for row in rows]
                found.append({spec.name: spec for spec in specs})
        engine.dispose()
    except SQLAlchemyError as error:
        # Its text may repeat the address, and the address holds a password.
        raise RegistryError(f"the registry cannot be read: {type(error).__name__}") from None
    except (DecodeError, TypeError) as error:
        raise RegistryError(f"the registry holds something else: {type(error).__name__}") from None
    return Definitions(*found)
