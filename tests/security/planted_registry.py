"""A registry as somebody who may write its database could leave it: every place that Feast executes is set."""

from __future__ import annotations

from pathlib import Path

import dill
from sqlalchemy import create_engine, text

from feature_repo.registry import registry_url


class _Touches:
    """Unpickling it makes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (_touch, (str(self.path),))


def _touch(path: str) -> None:
    Path(path).touch()


def plant(marker: Path, modules: Path) -> None:
    """Let every definition of the settings' registry run code that makes `marker`-1, -2 or -3.

    1 by the source text of an on-demand view, 2 by the body of a view's function, 3 by the module
    that a data source names (`modules` is a folder on the path).
    """
    from feast.protos.feast.core.DataSource_pb2 import DataSource
    from feast.protos.feast.core.FeatureView_pb2 import FeatureView
    from feast.protos.feast.core.OnDemandFeatureView_pb2 import OnDemandFeatureView

    module = modules / "planted_source.py"
    module.write_text(f"open({f'{marker}-3'!r}, 'w').close()\nclass PlantedDataSource: pass\n")
    body = dill.dumps(_Touches(Path(f"{marker}-2")), recurse=True)
    engine = create_engine(registry_url())
    with engine.begin() as connection:
        for name, stored in _rows(connection, "on_demand_feature_views"):
            view = OnDemandFeatureView.FromString(stored)
            function = view.spec.feature_transformation.user_defined_function
            function.body_text = f"open({f'{marker}-1'!r}, 'w').close()\n" + function.body_text
            _store(connection, "on_demand_feature_views", name, view.SerializeToString())
        for place, (name, stored) in enumerate(_rows(connection, "feature_views")):
            plain = FeatureView.FromString(stored)
            if place % 2:  # what comes first may end the reading of a view
                plain.spec.feature_transformation.user_defined_function.body = body
                plain.spec.feature_transformation.user_defined_function.name = "f"
                _store(connection, "feature_views", name, plain.SerializeToString())
                continue
            plain.spec.batch_source.type = DataSource.CUSTOM_SOURCE
            plain.spec.batch_source.data_source_class_type = "planted_source.PlantedDataSource"
            _store(connection, "feature_views", name, plain.SerializeToString())
    engine.dispose()


def _rows(connection: object, table: str) -> list[tuple[str, bytes]]:
    found = connection.execute(text(f"select feature_view_name, feature_view_proto from {table}"))  # type: ignore[attr-defined]
    return [(name, stored) for name, stored in found]


def _store(connection: object, table: str, name: str, stored: bytes) -> None:
    change = text(f"update {table} set feature_view_proto = :stored where feature_view_name = :name")
    connection.execute(change, {"stored": stored, "name": name})  # type: ignore[attr-defined]
