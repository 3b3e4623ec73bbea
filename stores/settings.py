"""The one settings object: read once from the environment, validated at start, then frozen.

Settings are grouped by the room that uses them (`settings().stream.batch`); the variable that sets
one stands beside it as its alias. An error names the variable and what it should be; a variable
that starts with `TOLLGATE_` and is none of these is refused with the nearest name that is one.
`docs/settings.md` is generated from the descriptions below.
"""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Iterator, Mapping
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any, Literal
from urllib.parse import quote

from pydantic import Field, ValidationError
from pydantic.fields import FieldInfo

from fraud.contract.transaction import declare_cardless
from stores.kafka import with_properties
from stores.reference_rates import RatesError, apply_rates
from stores.run_folder import default_run_folder
from stores.setting_cluster import ClusterSettings
from stores.setting_groups import (
    ContractSettings,
    EventLogSettings,
    FeastSettings,
    Group,
    HistorySettings,
    KafkaSettings,
    KeySettings,
    RedisSettings,
    SparkSettings,
    StreamSettings,
)
from stores.setting_groups_serving import HttpSettings, MachineSettings, RemoteModelSettings, ServeSettings

#: Where these packages are: a checkout, site-packages, a built Bento.
REPOSITORY = Path(__file__).resolve().parent.parent
#: Where what is made goes by default: beside the code in a checkout, else in the current folder.
HERE = REPOSITORY if (REPOSITORY / "pyproject.toml").exists() else Path.cwd()

PREFIX = "TOLLGATE_"

#: Below the home: the password of the embedded Valkey, for this user alone.
EMBEDDED_PASSWORD = "redis/password"

#: Variables with the prefix that are no settings: read by the setup script before Python runs.
_ELSEWHERE = frozenset({"TOLLGATE_PYTHON"})

#: What Kubernetes puts into every pod for each Service of the namespace ("service links").
_SERVICE_LINK = re.compile(
    r"^(TOLLGATE_\w*?)_(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT(_\d+_(TCP|UDP)(_(PROTO|PORT|ADDR))?)?)$"
)


class SettingsError(ValueError):
    """A setting that cannot be used; the text names the variable and says what it should be."""


class Settings(Group):
    """Every difference between environments, grouped by the room that uses it."""

    home: Path = Field(
        HERE / ".tollgate", alias="TOLLGATE_HOME",
        description="folder of everything mutable: lake, registry, models, logs; by default beside the code in a checkout, "
        "and in the current folder where Tollgate is installed",
    )  # fmt: skip
    results: Path = Field(
        HERE / "results", alias="TOLLGATE_RESULTS", description="folder of reports, evidence and benchmark figures"
    )  # fmt: skip
    run: Path = Field(
        default_factory=lambda known: default_run_folder(known.get("home", Path())), alias="TOLLGATE_RUN",
        description="folder on this host's own disk for what means nothing elsewhere or after a restart (metrics snapshots, "
        "locks, shared memory), never shared by two hosts; without it one in `XDG_RUNTIME_DIR` or the system's temporary folder",
    )  # fmt: skip
    umask: Literal["077", "027", "007"] = Field(
        "077", alias="TOLLGATE_UMASK",
        description="permissions that no file gets (octal): everything is for this user alone, or, where parts run as several users, for their group too",
    )  # fmt: skip
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field(
        "INFO", alias="TOLLGATE_LOG_LEVEL", description="least severe message that is logged"
    )
    contract: ContractSettings
    redis: RedisSettings
    feast: FeastSettings
    cluster: ClusterSettings
    event_log: EventLogSettings
    kafka: KafkaSettings
    keys: KeySettings
    stream: StreamSettings
    spark: SparkSettings
    history: HistorySettings
    serve: ServeSettings
    http: HttpSettings
    remote_model: RemoteModelSettings
    machine: MachineSettings

    @cached_property
    def lake(self) -> Path:
        """Root of the offline data (parquet)."""
        return self.home / "lake"

    @property
    def event_log_redis(self) -> str:
        """Address of the Redis that holds the event log."""
        return self.event_log.url or self.redis.url

    def changed(self, **values: Any) -> Settings:
        """A copy with other values, by their variables' names: `changed(serve_port=3001)`."""
        flat: dict[str, Any] = {}
        for group in (self, *(getattr(self, name) for name in _groups())):
            flat |= {variable: getattr(group, name) for name, variable, _ in variables(type(group))}
        unknown = {PREFIX + name.upper() for name in values} - flat.keys()
        if unknown:
            raise SettingsError("; ".join(map(_unknown, sorted(unknown))))
        if self.run == default_run_folder(self.home):
            del flat["TOLLGATE_RUN"]  # another home has another one
        return _read(flat | {PREFIX + name.upper(): value for name, value in values.items()})


def _groups() -> dict[str, type[Group]]:
    found = {name: field.annotation for name, field in Settings.model_fields.items()}
    return {name: part for name, part in found.items() if isinstance(part, type) and issubclass(part, Group)}


def variables(kind: type[Group]) -> Iterator[tuple[str, str, FieldInfo]]:
    """Name, variable and description of each setting that is one of `kind` itself."""
    for name, field in kind.model_fields.items():
        if field.alias is not None:
            yield name, field.alias, field


def documented() -> Iterator[tuple[str, list[tuple[str, FieldInfo]]]]:
    """Each group's heading with its variables, the whole platform's first."""
    yield "The platform", [(variable, field) for _, variable, field in variables(Settings)]
    for group in _groups().values():
        heading = (group.__doc__ or group.__name__).splitlines()[0].rstrip(".")
        yield heading, [(variable, field) for _, variable, field in variables(group)]


def _known() -> dict[str, FieldInfo]:
    return {variable: field for _, group in documented() for variable, field in group}


def _unknown(variable: str) -> str:
    names = [known.removeprefix(PREFIX) for known in _known()]
    near = difflib.get_close_matches(variable.removeprefix(PREFIX), names, n=1, cutoff=0.6)
    return f"{variable}: no such setting; " + (
        f"did you mean {PREFIX}{near[0]}?" if near else "see docs/settings.md"
    )


def _read(flat: Mapping[str, Any]) -> Settings:
    """Validate values by their variables; raise `SettingsError` naming every unusable one."""

    def own(group: type[Group]) -> dict[str, Any]:
        return {variable: flat[variable] for _, variable, _ in variables(group) if variable in flat}

    flat = _with_embedded_password(flat)
    try:
        return Settings.model_validate(
            own(Settings) | {name: own(group) for name, group in _groups().items()}
        )
    except ValidationError as error:
        known = _known()
        lines = []
        for problem in error.errors():
            variable = next(str(part) for part in problem["loc"] if part in known)
            lines.append(f"{variable}: {problem['msg']} ({known[variable].description})")
        raise SettingsError("; ".join(lines)) from None


def _with_embedded_password(flat: Mapping[str, Any]) -> Mapping[str, Any]:
    """The embedded server's address names the file of its password, once it has one."""
    variable, home = "TOLLGATE_REDIS_URL", Path(flat.get("TOLLGATE_HOME", REPOSITORY / ".tollgate"))
    file = (home / EMBEDDED_PASSWORD).absolute()
    if variable in flat or not file.is_file():
        return flat
    default = RedisSettings.model_fields["url"].default
    return {**flat, variable: f"{default}?password_file={quote(str(file))}"}


def _is_service_link(name: str, given: Mapping[str, str]) -> bool:
    """Whether Kubernetes made the variable: of a Service `tollgate-serve` even `TOLLGATE_SERVE_PORT`."""
    link = _SERVICE_LINK.match(name)
    made = link is not None and f"{link[1]}_SERVICE_HOST" in given
    return made and (name not in _known() or given[name].startswith(("tcp://", "udp://")))


def load_settings(environment: Mapping[str, str] | None = None) -> Settings:
    """Read the environment afresh; raise `SettingsError` naming every unusable variable."""
    found = os.environ if environment is None else environment
    given = {name: found[name] for name in found if name.startswith(PREFIX) and name not in _ELSEWHERE}
    meant = {name: value for name, value in given.items() if not _is_service_link(name, given)}
    meant = with_properties(meant, _known().keys())
    problems = [_unknown(name) for name in sorted(meant.keys() - _known().keys())]
    try:
        read = _read(meant)
    except SettingsError as error:
        problems.insert(0, str(error))
    if problems:
        raise SettingsError("; ".join(problems))
    return read


@lru_cache(maxsize=1)
def settings() -> Settings:
    """The settings of this process. The first call puts into force what the contract has of them, and
    the mask: from there on this process, and what it starts, makes its files for its user alone.
    """
    chosen = load_settings()
    os.umask(int(chosen.umask, 8))
    _close_to_others(chosen)
    if chosen.contract.reference_rates is not None:
        try:
            apply_rates(chosen.contract.reference_rates)
        except RatesError as error:
            raise SettingsError(f"TOLLGATE_REFERENCE_RATES: {error}") from None
    try:
        declare_cardless(chosen.contract.cardless_fields)
    except ValueError as error:
        raise SettingsError(f"TOLLGATE_CARDLESS_FIELDS: {error}") from None
    return chosen


def _close_to_others(chosen: Settings) -> None:
    """Take from a home that is there already, perhaps made under another mask, what the mask takes."""
    mask = int(chosen.umask, 8)
    try:
        found = chosen.home.stat()
        if found.st_uid == os.getuid() and found.st_mode & mask:
            chosen.home.chmod(found.st_mode & 0o777 & ~mask)
    except OSError:
        return  # there is none yet
