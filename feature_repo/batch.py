"""Batch views: Feast's `BatchFeatureView` whose aggregations Spark computes at every cut.

The stock registry gives a batch view back without its aggregations, so they stand in its tags as well, where
``feast ui`` shows them; the platform computes by the document of declarations.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from datetime import timedelta
from typing import Any, Final, cast

from feast import BatchFeatureView, Entity, Field
from feast.aggregation import Aggregation
from feast.types import Float64, String

from feature_repo.declare import note
from feature_repo.sources import BY_CUT, lake_source
from feature_repo.words import figures_of
from fraud.declared.figures import BatchView, Figure
from fraud.features.entities import PROFILE_TTL

#: The tag of views whose aggregations Spark computes: the event's field that names the entity.
BATCH_TAG: Final = "tollgate.batch"
_FIGURE_TAG: Final = "tollgate.figure."
_FOLDER_TAG: Final = "tollgate.folder"


class CutView(BatchFeatureView):
    """A batch view that says "experimental" once less: Feast warns of it on every copy."""

    def __copy__(self) -> BatchFeatureView:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)
            return super().__copy__()


def batch_view(
    name: str,
    entity: Entity,
    aggregations: Sequence[Aggregation],
    *,
    ttl: timedelta = PROFILE_TTL,
    meanings: dict[str, str] | None = None,
    description: str = "",
) -> BatchFeatureView:
    """Aggregates of transactions by `entity` as of every cut, each a feature of the view.

    The entity's join key is the field of the event, or the attribute, that names it. Aggregations have a
    `column` (a field, an attribute or a measure; none for `count`), a `function` of
    `fraud.declared.batch`, a `time_window` of 1 to 366 days and a `name`.
    """
    note(name)
    for one in aggregations:
        note(one.name)
    return cut_view(name, entity, aggregations, name, ttl, meanings or {}, description)


def cut_view(
    name: str, entity: Entity, aggregations: Sequence[Aggregation], folder: str, ttl: timedelta,
    meanings: dict[str, str], description: str,
) -> BatchFeatureView:  # fmt: skip
    """A batch view whose rows lie in `folder` of the lake's profiles."""
    figures = figures_of(aggregations, meanings)
    tags = {BATCH_TAG: entity.join_key, _FOLDER_TAG: folder}
    for figure in figures:
        days = f" over {figure.window_ms // 86_400_000}d" if figure.window_ms else ""
        tags[f"{_FIGURE_TAG}{figure.name}"] = f"{figure.function}({', '.join(figure.columns)}){days}"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # "experimental", on every construction
        return CutView(
            name=name,
            entities=[entity],
            ttl=ttl,
            schema=[Field(name=entity.join_key, dtype=String)]
            + [
                Field(name=each.name, dtype=Float64, description=each.meaning or words(each))
                for each in figures
            ],
            source=lake_source(f"{folder}_profiles", f"profiles/{folder}", BY_CUT, "by Spark, at every cut"),
            online=True,
            aggregations=list(aggregations),
            tags=tags,
            description=description or f"aggregates of transactions by {entity.name}, as of a cut",
        )  # fmt: skip


def words(figure: Figure) -> str:
    """What a figure means where nobody said so."""
    of = f" of {', '.join(figure.columns)}" if figure.columns else ""
    return f"{figure.function}{of} over {figure.window_ms // 86_400_000} days"


def batch_of(view: Any) -> BatchView:
    """The batch view as the platform computes it, from Feast's object."""
    view = cast("BatchFeatureView", view)
    meanings = {each.name: each.description for each in view.features}
    return BatchView(
        view.name,
        view.entities[0],
        view.tags[BATCH_TAG],
        view.tags[_FOLDER_TAG],
        figures_of(view.aggregations or [], meanings),
    )
