"""What a rule file would have done: `python -m bentos.tools.backtest_rules --rules FILE`.

Runs the rules over the decision log's own vectors and scores, joins what became known since, and
prints per rule its hits, precision, the fraud value it caught and the genuine customers it
declined or sent to review; then how the decisions differ from those of the live file.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from bentos.models.by_pattern import ByPattern
from bentos.rules.ruleset import DEFAULT_RULES, RuleError, RuleSet, load_rules
from fraud.contract.money import decimal_amount
from fraud.contract.transaction import Transaction
from fraud.decision.decide import Thresholds, decide
from stores.attributes import attributes_of
from stores.decisions import TRANSACTION_FIELDS, decisions_folder, parquet_schema
from stores.declared import served_vector
from stores.deployment import in_service
from stores.lake import read_labels
from stores.lake_files import parquet_files, readable
from stores.models import Limits, ModelError, model_folder, read_manifest
from stores.settings import settings

_CEILING = Thresholds(0.5, 0.9)


@dataclass(slots=True)
class RuleFigures:
    """One rule over a period; amounts in reference cents."""

    action: str
    hits: int = 0
    labelled_fraud: int = 0
    caught_value: int = 0
    genuine_customers: set[str] = field(default_factory=set)


@dataclass(slots=True)
class Backtest:
    """The figures of a rule file, and how its decisions differ from the live file's."""

    rows: int = 0
    frauds: int = 0
    rules: dict[str, RuleFigures] = field(default_factory=dict)
    decisions: Counter[str] = field(default_factory=Counter)
    live: Counter[str] = field(default_factory=Counter)
    changes: Counter[tuple[str, str]] = field(default_factory=Counter)


def _rows(
    table: pa.Table,
) -> Iterator[tuple[Transaction, int, float | None, str | None, dict[str, str], float]]:
    columns = {name: table.column(name).to_pylist() for name in TRANSACTION_FIELDS}
    attributes = table.column("attributes").to_pylist()
    extra = [
        table.column(name).to_pylist()
        for name in ("event_timestamp", "amount_minor", "amount_reference", "score", "model_version")
    ]
    extra += [table.column("feature_status").to_pylist(), _lateness_seconds(table)]
    for row, (event, minor, reference, score, version, status, late) in enumerate(zip(*extra, strict=True)):
        values = {name: columns[name][row] for name in TRANSACTION_FIELDS}
        amount = decimal_amount(minor, values["currency"])
        given = attributes_of(attributes[row])
        yield (
            Transaction(event_time=event, amount=amount, attributes=given, **values),
            reference,
            score,
            version,
            dict(status),
            late,
        )


def _lateness_seconds(table: pa.Table) -> list[float]:
    """How long after its stated time each transaction was received, 0 in a replay."""
    known, stated = (
        table.column(name).cast(pa.int64()).to_numpy() for name in ("created_timestamp", "stated_timestamp")
    )
    replayed = table.column("replayed").to_numpy(zero_copy_only=False).astype(bool)
    return [float(seconds) for seconds in np.where(replayed, 0.0, (known - stated) / 1e6)]


def _vectors(table: pa.Table) -> npt.NDArray[np.float64]:
    """The served rows; a feature that a version before did not have is missing."""
    nothing = np.full(table.num_rows, np.nan)
    known = set(table.column_names)
    columns = [
        table.column(name).to_numpy(zero_copy_only=False) if name in known else nothing
        for name in served_vector()
    ]
    return np.stack(columns, axis=1)


def backtest(
    files: Sequence[Path], candidate: RuleSet, live: RuleSet, frauds: set[str], home: Path
) -> Backtest:
    """Run both rule sets over decision files; `frauds` are the transactions known to be fraud."""
    result = Backtest(rules={rule.name: RuleFigures(rule.action) for rule in candidate.rules})
    limits: dict[str, ByPattern] = {}
    for path in files:
        try:
            table = pq.read_table(path, partitioning=None)
        except (OSError, pa.ArrowException) as error:
            print(
                f"{path.name} is passed over: its pages are damaged ({type(error).__name__})", file=sys.stderr
            )
            continue
        vectors = _vectors(table)
        for row, (transaction, reference, score, version, status, late) in enumerate(_rows(table)):
            thresholds = None
            if version is not None:
                if version not in limits:
                    limits[version] = _limits(home, version)
                thresholds = limits[version].of(status, transaction).thresholds
            fraud = transaction.transaction_id in frauds
            hits = candidate.hits(transaction, reference, vectors[row], score, late)
            served = live.hits(transaction, reference, vectors[row], score, late)
            before, after = decide(score, thresholds, served), decide(score, thresholds, hits)
            result.rows += 1
            result.frauds += fraud
            result.decisions[after] += 1
            result.live[before] += 1
            if before != after:
                result.changes[before, after] += 1
            for rule in hits:
                figures = result.rules[rule.name]
                figures.hits += 1
                if fraud:
                    figures.labelled_fraud += 1
                    figures.caught_value += reference
                elif rule.action in ("block", "review"):
                    figures.genuine_customers.add(transaction.customer_id)
    return result


def _limits(home: Path, version: str) -> ByPattern:
    """The thresholds of a model version; those of the champion if it left the store."""
    for name in (version, getattr(in_service(home), "champion", None)):
        if name is not None:
            try:
                manifest = read_manifest((model_folder(home, name) / "manifest.json").read_text())
            except (OSError, ModelError):
                continue
            return ByPattern(manifest.limits, manifest.patterns)
    return ByPattern(Limits(_CEILING), {})


def report(result: Backtest) -> str:
    """The figures as text."""
    lines = [
        f"{result.rows:,} decisions, {result.frauds:,} known to be fraud",
        f"{'rule':<32}{'action':<9}{'hits':>8}{'precision':>11}{'value caught':>14}{'genuine customers':>19}",
    ]
    for name, figures in result.rules.items():
        precision = f"{figures.labelled_fraud / figures.hits:.3f}" if figures.hits else "-"
        lines.append(
            f"{name:<32}{figures.action:<9}{figures.hits:>8,}{precision:>11}"
            f"{figures.caught_value / 100:>14,.2f}{len(figures.genuine_customers):>19,}"
        )
    lines.append(
        "decisions      " + ", ".join(f"{key} {value:,}" for key, value in sorted(result.decisions.items()))
    )
    lines.append(
        "live file      " + ", ".join(f"{key} {value:,}" for key, value in sorted(result.live.items()))
    )
    changes = ", ".join(f"{a} -> {b} {count:,}" for (a, b), count in sorted(result.changes.items()))
    lines.append(f"difference     {changes or 'none'}")
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    chosen = settings()
    live_path = chosen.serve.rules_file or DEFAULT_RULES
    parser = argparse.ArgumentParser(
        prog="python -m bentos.tools.backtest_rules", description=__doc__.split("\n\n")[0]
    )
    parser.add_argument("--rules", type=Path, default=live_path, help="rule file to try")
    parser.add_argument("--decisions", type=Path, default=decisions_folder(chosen.home), help="decision log")
    options = parser.parse_args(arguments)
    written = parquet_schema(())
    files = readable(parquet_files(options.decisions), written, written.names)
    if not files:
        print(f"no decisions under {options.decisions}: score something first (make demo)", file=sys.stderr)
        return 1
    try:
        candidate, live = load_rules(options.rules), load_rules(live_path)
    except RuleError as error:
        print("the rule file cannot be used:", *error.problems, sep="\n  ", file=sys.stderr)
        return 1
    labels = read_labels(chosen.lake)
    frauds = {
        name
        for name, fraud in zip(
            labels.column("transaction_id").to_pylist(), labels.column("is_fraud").to_pylist(), strict=True
        )
        if fraud
    }
    print(report(backtest(files, candidate, live, frauds, chosen.home)))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
