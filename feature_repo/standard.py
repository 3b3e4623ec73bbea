"""Every entity, source, view and service that the platform itself declares.

The tables behind these lines are `fraud.features.entities` (who is watched, over which windows) and
`fraud.features.profiles` / `fraud.features.on_demand` (what is computed). Per entity there is one batch view
(profiles, by Spark at every cut) and one push-sourced view (the packed velocity state, by the
stream at every event). One on-demand view turns states, profiles and the transaction itself
into request-time features.
"""

from __future__ import annotations

from types import FunctionType
from typing import Any, cast

from feast import (
    BatchFeatureView,
    Entity,
    FeatureService,
    FeatureView,
    Field,
    OnDemandFeatureView,
    PushSource,
    RequestSource,
    ValueType,
)
from feast.types import Bytes, Float64, Int64, String

from feature_repo.batch import cut_view
from feature_repo.sources import BY_DATE, lake_source
from feature_repo.standard_profiles import PROFILES
from feature_repo.standard_velocity import VELOCITIES
from feature_repo.velocity_columns import VELOCITY_TAG
from fraud.features.entities import ENTITIES, FEATURE_SERVICE, PROFILE_TTL, VELOCITY_TTL
from fraud.features.entities import Entity as Watched
from fraud.features.feature_list import PROFILE_INPUTS, TRANSACTION_FEATURES
from fraud.features.request import REQUEST_FIELDS


def entity(watched: Watched) -> Entity:
    """The Feast entity: one string join key."""
    return Entity(name=watched.name, join_keys=[watched.key], value_type=ValueType.STRING)


def profile(watched: Watched, keyed: Entity) -> BatchFeatureView:
    """The batch view of an entity: its figures as of the last cut."""
    figures = PROFILES[watched.name]
    return cut_view(
        watched.profile_view, keyed, [each.aggregation for each in figures], watched.name, PROFILE_TTL,
        {each.name: each.meaning for each in figures}, f"1, 7 and 30 days of the {watched.name} as of a cut",
    )  # fmt: skip


def velocity(watched: Watched, keyed: Entity) -> FeatureView:
    """The stream's view of an entity: its packed velocity state after its newest event."""
    log = lake_source(
        f"{watched.name}_velocity_log",
        f"velocity/{watched.name}",
        BY_DATE,
        "every state, from when it was visible",
    )
    return FeatureView(
        name=watched.velocity_view,
        entities=[keyed],
        ttl=VELOCITY_TTL,
        schema=[
            Field(name=watched.key, dtype=String),
            Field(name=watched.state_feature, dtype=Bytes, description="packed state (fraud.state.velocity)"),
            *[
                Field(name=word.name, dtype=Float64, description=word.meaning)
                for word in VELOCITIES[watched.name]
            ],
        ],
        tags={VELOCITY_TAG: watched.name},
        source=PushSource(name=f"{watched.name}_updates", batch_source=log),
        description=f"the {watched.name}'s recent events, ready for any window",
    )


def request_features(inputs: dict[str, Any]) -> dict[str, Any]:
    """Request-time features; Feast rebuilds this function from its text, so it imports inside."""
    from fraud.features.on_demand import on_demand

    return on_demand(inputs)


customer, card, merchant, terminal, device, ip = keyed = [entity(each) for each in ENTITIES]

(
    customer_profile, card_profile, merchant_profile, terminal_profile, device_profile, ip_profile,
) = profiles = [profile(*pair) for pair in zip(ENTITIES, keyed, strict=True)]  # fmt: skip

(
    customer_velocity, card_velocity, merchant_velocity, terminal_velocity, device_velocity, ip_velocity,
) = velocities = [velocity(*pair) for pair in zip(ENTITIES, keyed, strict=True)]  # fmt: skip

transaction = RequestSource(
    name="transaction",
    schema=[Field(name=name, dtype=Int64, description=meaning) for name, meaning in REQUEST_FIELDS.items()],
)

transaction_features = OnDemandFeatureView(
    name="transaction_features",
    sources=[
        transaction,
        *[view[[each.state_feature]] for each, view in zip(ENTITIES, velocities, strict=True)],
        *[
            view[[feature.name for feature in view.features if feature.name in PROFILE_INPUTS]]
            for view in profiles
            if any(feature.name in PROFILE_INPUTS for feature in view.features)
        ],
    ],
    # No descriptions here: Feast compares these fields with ones it infers, which have none.
    schema=[Field(name=each.name, dtype=Float64) for each in TRANSACTION_FEATURES],
    mode="python",
    udf=cast(FunctionType, request_features),
    udf_string="""def request_features(inputs):
    from fraud.features.on_demand import on_demand

    return on_demand(inputs)
""",
    description="windows, novelty, distance and amounts against history, at the transaction's own time",
)

#: What the standard service serves: a service of one's own lists these and more.
standard_features = [
    *[
        view[[word.name for word in PROFILES[each.name] if word.served]]
        for each, view in zip(ENTITIES, profiles, strict=True)
    ],
    transaction_features,
]
fraud_scoring_v1 = FeatureService(
    name=FEATURE_SERVICE,
    features=standard_features,
    description="everything a model sees, in training and in serving",
)


def objects() -> list[Any]:
    """What ``feast apply`` finds here, for applying from code."""
    sources = [view.batch_source for view in profiles + velocities] + [
        view.stream_source for view in velocities
    ]
    return [*sources, transaction, *keyed, *profiles, *velocities, transaction_features, fraud_scoring_v1]
