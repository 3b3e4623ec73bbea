"""The feature catalogue, written from the feature tables: `python -m training.catalogue`.

Each feature of the model's vector in one line: meaning, entity, source, freshness, ttl, what
null means, and the champion's importance where there is a champion.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from fraud.declared.declaration import attribute_feature
from fraud.features.entities import CUT_INTERVAL, ENTITY_BY_NAME, FEATURE_SERVICE, PROFILE_TTL, VELOCITY_TTL
from fraud.features.feature_list import CATEGORICAL, TRANSACTION_FEATURES
from fraud.features.profiles import PROFILE_FEATURES
from stores.declared import declared, served_vector
from stores.settings import REPOSITORY, settings
from training.constraints import direction
from training.promote import read_deployment
from training.save import model_folder, newest_version

TARGET = REPOSITORY / "docs" / "features.md"


@dataclass(frozen=True, slots=True)
class Entry:
    """One feature of the vector as the catalogue shows it."""

    name: str
    meaning: str
    entity: str
    view: str
    source: str
    freshness: str
    ttl: str
    null: str
    direction: int
    categorical: bool


def entries() -> list[Entry]:
    """Every served feature, in order: the standard ones, then a team's own."""
    known = {entry.name: entry for entry in (*_profile_entries(), *_request_entries(), *_own_entries())}
    return [known[name] for name in served_vector() if name in known]


def _own_entries() -> list[Entry]:
    own = declared()
    declarations = own.declarations
    facts: dict[str, tuple[str, str, str, str, str]] = {}
    for stream in declarations.streams:
        ttl = _days(timedelta(milliseconds=stream.ttl_ms))
        null = f"no {stream.key} named, no state of it, or a window from before its history is known"
        for each in stream.aggregates:
            facts[each.name] = (stream.entity, "state of a declared view", "every transaction", ttl, null)
    for table in declarations.tables:
        ttl = _days(timedelta(microseconds=table.ttl_us)) if table.ttl_us else "–"
        null = f"no row of this {table.entity}, or one past its ttl"
        for name in table.features:
            facts[name] = (table.entity, "another team's table", "when it is materialized", ttl, null)
    found = []
    for name, view in declarations.features():
        owner, source, freshness, ttl, null = facts.get(
            name, ("–", "transaction and views", "at the request", "–", "one of its inputs is null")
        )
        coded = any(attribute_feature(each) == name and each.codes for each in declarations.attributes)
        found.append(
            Entry(name, own.meanings[name], owner, view or "attributes", source, freshness, ttl, null,
                  direction(name), coded)
        )  # fmt: skip
    return found


def _profile_entries() -> list[Entry]:
    lag = f"every {_days(CUT_INTERVAL)}, visible {settings().history.cut_lag_minutes} minutes later"
    return [
        Entry(
            feature.name, feature.meaning, name, ENTITY_BY_NAME[name].profile_view, "Spark aggregate", lag,
            _days(PROFILE_TTL), f"no such {name}, nothing in the window, or a profile past its ttl",
            direction(feature.name), False,
        )
        for name, features in PROFILE_FEATURES.items()
        for feature in features
    ]  # fmt: skip


def _request_entries() -> list[Entry]:
    profile, velocity = _days(PROFILE_TTL), _days(VELOCITY_TTL)
    result = []
    for feature in TRANSACTION_FEATURES:
        owner = feature.entity or "–"
        if feature.entity is None:
            facts = ("transaction", "at the request", "–", "the transaction does not say")
        elif _reads_profile(feature.name):
            lacking = "no location" if "_km_" in feature.name else "nothing to divide by"
            null = f"no profile of this {owner}, or {lacking}"
            facts = ("state and profile", "at the request", profile, null)
        else:
            facts = ("velocity state", "every transaction", velocity, f"no {owner} named, or no state of it")
        coded = feature.name in CATEGORICAL
        view = "transaction_features"
        result.append(
            Entry(feature.name, feature.meaning, owner, view, *facts, direction(feature.name), coded)
        )
    return result


def _reads_profile(name: str) -> bool:
    return name.endswith("_30d")


def _days(span: timedelta) -> str:
    hours = span.total_seconds() / 3600
    return f"{hours / 24:g} days" if hours >= 24 else f"{hours:g} hours"


def importances(version: str | None) -> dict[str, float]:
    """Share of split gain by feature of a saved model; empty without one."""
    if version is None:
        return {}
    path = model_folder(version) / "manifest.json"
    gain: dict[str, float] = json.loads(path.read_bytes())["gain"] if path.is_file() else {}
    return gain


def champion_version() -> str | None:
    """The champion, else the newest model, else None."""
    chosen: str | None = read_deployment().champion
    if chosen is None:
        try:
            return newest_version()
        except LookupError:
            return None
    return chosen


def markdown(version: str | None) -> str:
    """The catalogue as Markdown, grouped by view, with the importances of `version`."""
    gain = importances(version)
    listed = entries()
    lines = [
        "# Features",
        "",
        "Written by `make catalogue` from `fraud/features/`; do not edit.",
        "",
        f"The feature service `{FEATURE_SERVICE}` serves these {len(listed)} features,",
        "in this order. All are 64-bit floats; missing is null (NaN to the model), never zero. Windows are",
        "`[t - W, t)` over event time. Amounts are reference cents. ↑ marks features whose rise",
        "may never lower the score.",
    ]
    if gain:
        lines.append(f"Importance is the share of split gain in model `{version}`.")
    for view in dict.fromkeys(entry.view for entry in listed):
        group = [entry for entry in listed if entry.view == view]
        lines += ["", f"## {view}", ""]
        shared = {(entry.source, entry.freshness, entry.ttl, entry.null) for entry in group}
        if len(shared) == 1:
            source, freshness, ttl, null = next(iter(shared))
            lines += [f"Source: {source}. Fresh: {freshness}. Ttl: {ttl}. Null: {null}.", ""]
        head = ["feature", "meaning"] + (
            [] if len(shared) == 1 else ["entity", "source", "fresh", "ttl", "null means"]
        )
        head += ["importance"] if gain else []
        lines += ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
        lines += [_line(entry, gain, short=len(shared) == 1) for entry in group]
    return "\n".join(lines) + "\n"


def _line(entry: Entry, gain: dict[str, float], *, short: bool) -> str:
    mark = " ↑" if entry.direction > 0 else ""
    cells = [f"`{entry.name}`{mark}", entry.meaning]
    if not short:
        cells += [entry.entity, entry.source, entry.freshness, entry.ttl, entry.null]
    if gain:
        cells.append(f"{gain[entry.name]:.2%}" if entry.name in gain else "–")
    return "| " + " | ".join(cells) + " |"


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m training.catalogue", description="Write docs/features.md."
    )
    parser.add_argument("--version", help="model whose importances are shown (default: champion or newest)")
    parser.add_argument("--out", type=Path, default=TARGET)
    options = parser.parse_args(argv)
    version = options.version or champion_version()
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(markdown(version), encoding="utf-8")
    print(f"catalogue: {len(served_vector())} features in {options.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
