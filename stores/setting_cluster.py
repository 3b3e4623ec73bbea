"""The settings of several hosts that share engines and no folder."""

from __future__ import annotations

from typing import Annotated
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field

from stores.places import checked_place
from stores.setting_groups import Group


def _a_database(url: str) -> str:
    parts = urlsplit(url)
    if parts.password:
        raise ValueError("should hold no password: name a file of it, ?passfile=/path, or set PGPASSFILE")
    if not parts.path.strip("/"):
        raise ValueError("should name a database: postgresql://user@host:5432/database")
    return url


class ClusterSettings(Group):
    """Beyond one machine: what several hosts share instead of a folder (docs/beyond-one-machine.md)."""

    store_url: Annotated[str, AfterValidator(checked_place)] | None = Field(
        None, alias="TOLLGATE_STORE_URL",
        description="where hosts put what they make and find what others made: models, decisions, labels, arrivals, aggregates, training sets, "
        "reports; s3://, gs://, abfs:// or file://; without it one host has all of it in its home folder",
    )  # fmt: skip
    state_url: Annotated[str, Field(pattern="^postgresql://"), AfterValidator(_a_database)] | None = Field(
        None, alias="TOLLGATE_STATE_URL",
        description="PostgreSQL of the deployment, its history, the schedule's state and (unless `TOLLGATE_REGISTRY_URL` says otherwise) Feast's "
        "registry; takes the extra `postgres`; without it files in the home folder",
    )  # fmt: skip
    shipped_keep_hours: float = Field(
        48.0, alias="TOLLGATE_SHIPPED_KEEP_HOURS", ge=1, le=8_760,
        description="hours that a scoring host keeps decision files which it has shipped; the store keeps them on",
    )  # fmt: skip
    lost_host_seconds: float = Field(
        300.0, alias="TOLLGATE_LOST_HOST_SECONDS", ge=5, le=86_400,
        description="seconds after which the jobs host takes over what a host had shipped of its decision log and did not go on with",
    )  # fmt: skip
    ship_seconds: float = Field(
        1.0, alias="TOLLGATE_SHIP_SECONDS", ge=0.1, le=60,
        description="seconds between two looks of a host's exchange: what a lost host may take along is what it made since",
    )  # fmt: skip
