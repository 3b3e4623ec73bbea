"""Running a gate: files first, then rows and facts through Great Expectations."""

from __future__ import annotations

import hashlib
import logging
import os
import time
import warnings
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Final, Literal

import pandas as pd

from fraud.contract.cards import redact
from monitoring import gauges
from monitoring.gates import files as batch_files
from monitoring.gates.checks import Check, Failure, GateResult
from monitoring.gates.facts import History, Summary, facts, summarise, summarise_spark
from monitoring.gates.frames import pandas_frame, read_table, spark_frame
from monitoring.gates.labelled import decision_facts, training_facts
from monitoring.gates.suites import PERSONAL, suite
from stores.settings import settings

Engine = Literal["pandas", "spark"]
MOST_EXAMPLES: Final = 3
#: Gates whose facts need the rows in this process.
PANDAS_ONLY: Final = ("training", "decisions")


def run_gate(
    gate: str,
    path: Path,
    *,
    entity: str | None = None,
    engine: Engine = "pandas",
    as_of: datetime | None = None,
    history: History | None = None,
    docs: Path | None = None,
) -> GateResult:
    """Hold the batch at `path` (a parquet file or a folder of them) to the suite of `gate`.

    `entity` is read from the path if it is not given; `as_of` is the gate's clock (UTC, default
    now). `history` holds earlier passed batches, and is added to when this one passes; without
    it nothing is compared with the past. With `docs`, Data Docs are built in that folder.
    Never raises for bad data: the answer says what is wrong.
    """
    started = time.monotonic()
    entity = entity or batch_files.entity_of(path)
    as_of = as_of or datetime.now(UTC)
    subject = entity or path.name
    files, failures = batch_files.inspect(gate, path, entity)
    if failures or not files:
        seconds = time.monotonic() - started
        return GateResult(gate, subject, 0, seconds, tuple(failures), checks=len(files))
    checks = suite(gate, entity)
    key = f"{gate}/{entity}" if entity else gate
    past = history.past(key) if history is not None else []
    if engine == "spark" and gate not in PANDAS_ONLY:
        from feature_repo.spark import spark_session

        frame: Any = spark_frame(gate, files, spark_session("gates"), entity=entity, as_of=as_of).cache()
        summary = summarise_spark(gate, frame, entity)
        found = facts(summary, past)
    else:
        engine = "pandas"
        table = read_table(files)
        summary = summarise(gate, table, entity)
        found = facts(summary, past)
        frame = pandas_frame(gate, table, entity=entity, as_of=as_of)
        if gate == "training":
            found |= training_facts(frame)
        elif gate == "decisions":
            found |= decision_facts(frame)
    results = _validate(key, checks, frame, found, engine, docs)
    result = GateResult(
        gate, subject, summary.rows, time.monotonic() - started,
        tuple(_ordered(_failures(checks, results, frame, found, engine))), found, len(checks),
        docs / "index.html" if docs is not None else None,
    )  # fmt: skip
    if engine == "spark":
        frame.unpersist()
    if history is not None and not result.blocked:
        history.add(key, summary)
    return result


def gate_paths(gate: str, lake: Path, entity: str) -> Path:
    """Where `gate` looks for an entity's data by default: the newest cut, or the velocity log."""
    if gate == "profiles":
        cuts = sorted((lake / "profiles" / entity).glob("cut=*"))
        return cuts[-1] if cuts else lake / "profiles" / entity
    return lake / gate / entity


def quiet_expectations() -> Any:
    """Great Expectations and its expectations, imported when first needed and told to be quiet."""
    os.environ.setdefault("GX_ANALYTICS_ENABLED", "false")
    os.environ.setdefault("TQDM_DISABLE", "1")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import great_expectations as gx
        import great_expectations.expectations as gxe
    logging.getLogger("great_expectations").setLevel(logging.ERROR)
    return SimpleNamespace(gx=gx, gxe=gxe)


def _validate(
    key: str, checks: Sequence[Check], frame: Any, found: Mapping[str, Any], engine: Engine, docs: Path | None
) -> list[Any]:
    """One result for each check, in order; personal values never enter a stored result."""
    from monitoring.gates import data_docs

    library = quiet_expectations()
    context = data_docs.context(library.gx, docs)
    about = pd.DataFrame([{name: _float(value) for name, value in found.items()}])
    results: dict[int, Any] = {}
    runs = []
    for part, data, kind in (("rows", frame, engine), ("facts", about, "pandas")):
        chosen = [(place, check) for place, check in enumerate(checks) if check.facts == (part == "facts")]
        name = f"{key.replace('/', '-')}-{part}"
        expectations = library.gx.ExpectationSuite(name)
        for place, check in chosen:
            expectations.add_expectation(_expectation(library.gxe, check, place))
        definition = data_docs.definition(library.gx, context, name, kind, expectations)
        runs.append((definition, data))
    for definition, data in runs:
        outcome = data_docs.validate(library.gx, context, definition, data, docs)
        for result in outcome.results:
            results[int(result.expectation_config.meta["place"])] = result
    if docs is not None:
        data_docs.publish(context, docs)
    return [results[place] for place in range(len(checks))]


def _expectation(gxe: Any, check: Check, place: int) -> Any:
    severity = "critical" if check.severity == "block" else "warning"
    meta = {"place": place, "fault": check.fault}
    notes = f"{check.fault}: {check.cure}"
    return getattr(gxe, check.expectation)(**dict(check.arguments), severity=severity, meta=meta, notes=notes)


def _failures(
    checks: Sequence[Check], results: Sequence[Any], frame: Any, found: Mapping[str, Any], engine: Engine
) -> list[Failure]:
    failures = []
    for check, result in zip(checks, results, strict=True):
        if result.success:
            continue
        raised = (result.exception_info or {}).get("exception_message") if _raised(result) else None
        if raised is not None:
            what = f"{check.column} could not be checked: {str(raised).splitlines()[0][:160]}"
            failures.append(Failure("wrong columns", "block", what, None, None, (), check.cure))
        elif check.facts:
            value = found.get(check.column)
            failures.append(
                Failure(check.fault, check.severity, _fact_text(check, value), None, None, (), check.cure)
            )
        else:
            rows = int(result.result.get("unexpected_count") or 0)
            share = rows / max(int(result.result.get("element_count") or 1), 1)
            shown = examples(check, frame, engine)
            failures.append(
                Failure(check.fault, check.severity, _row_text(check), rows, share, shown, check.cure)
            )
    return failures


def _raised(result: Any) -> bool:
    information = result.exception_info or {}
    if "raised_exception" in information:
        return bool(information["raised_exception"])
    return any(isinstance(entry, dict) and entry.get("raised_exception") for entry in information.values())


def _row_text(check: Check) -> str:
    arguments = check.arguments
    if check.fault == "nulls":
        return f"{check.column} is missing"
    if check.fault == "duplicates":
        return f"{check.column} repeats"
    if "column_A" in arguments:
        return f"{arguments['column_A']} is below {arguments['column_B']}"
    if "min_value" in arguments:
        low, high = arguments["min_value"], arguments["max_value"]
        limits = " and ".join(
            t
            for t in (f"below {low}" if low is not None else "", f"above {high}" if high is not None else "")
            if t
        )
        return f"{check.column.lstrip('_')} is {limits.replace(' and ', ' or ')}"
    return f"{check.column} is not a known value"


def _fact_text(check: Check, value: Any) -> str:
    low, high = check.arguments["min_value"], check.arguments["max_value"]
    allowed = (
        f"at least {low}"
        if high is None
        else f"at most {high}"
        if low is None
        else f"{low}"
        if low == high
        else f"{low} to {high}"
    )
    shown = "none" if value is None else f"{value:.4g}"
    return f"{check.column.replace('_', ' ')} is {shown}, should be {allowed}"


def examples(check: Check, frame: Any, engine: Engine) -> tuple[str, ...]:
    """Where the check fails: row places (pandas), and values that are nobody's or are hashed."""
    if engine == "spark" or not isinstance(frame, pd.DataFrame):
        return ()
    bad = _bad_rows(check, frame)
    if bad is None:
        return ()
    shown = []
    for _, row in frame[bad].head(MOST_EXAMPLES).iterrows():
        values = [
            f"{name.lstrip('_')} {safe(name, row[name])}"
            for name in _columns(check)
            if not pd.isna(row[name])
        ]
        shown.append(" ".join([f"row {row['_row']}", *values]))
    return tuple(shown)


def _columns(check: Check) -> list[str]:
    arguments = check.arguments
    named = [arguments[name] for name in ("column", "column_A", "column_B") if name in arguments]
    return [*named, *arguments.get("column_list", ())]


def _bad_rows(check: Check, frame: pd.DataFrame) -> Any:
    """Which rows of a pandas batch break the check, or None where that is not told by values alone."""
    a = check.arguments
    if check.fault == "nulls":
        return frame[a["column"]].isna()
    if check.fault == "duplicates":
        return frame.duplicated(_columns(check), keep=False)
    if "column_A" in a:
        return frame[a["column_A"]] < frame[a["column_B"]]
    if "min_value" in a:
        values = frame[a["column"]]
        low, high = a["min_value"], a["max_value"]
        bad = pd.Series(False, index=frame.index)
        bad |= values < low if low is not None else False
        bad |= values > high if high is not None else False
        return bad
    if "value_set" in a:
        return ~frame[a["column"]].isin(a["value_set"]) & frame[a["column"]].notna()
    if "regex" in a:
        return ~frame[a["column"]].astype(str).str.match(a["regex"]) & frame[a["column"]].notna()
    return None


def safe(column: str, value: Any) -> str:
    """A value for people: personal ones as a short hash, card numbers blotted out."""
    if column in PERSONAL:
        return "#" + hashlib.sha256(str(value).encode()).hexdigest()[:10]
    if isinstance(value, bytes):
        return f"{len(value)} bytes"
    return redact(str(value))[:60]


def _ordered(failures: Sequence[Failure]) -> list[Failure]:
    """Blockers first; a fault that blocks is not repeated as a warning on the same fact."""
    blocked = {failure.what.partition(",")[0] for failure in failures if failure.severity == "block"}
    kept = [f for f in failures if f.severity == "block" or f.what.partition(",")[0] not in blocked]
    return sorted(kept, key=lambda failure: failure.severity != "block")


def _float(value: Any) -> float | None:
    return None if value is None else float(value)


def publish_state(gate: str, blocked: bool) -> None:
    """Leave the gate's last state as a gauge, for the alert."""
    meaning = "1 if the gate's last run stopped bad data"
    gauges.publish(
        f"gate-{gate}", gauges.text("tollgate_gate_blocked", meaning, [({"gate": gate}, float(blocked))])
    )


def default_history() -> History:
    """The history of this home."""
    return History(settings().home / "gates" / "history.json")


__all__ = ["Summary", "default_history", "gate_paths", "publish_state", "run_gate"]
