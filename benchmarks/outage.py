"""Redis frozen for a minute under 300 requests a second: `results/bench/outage.json`.

    python -m benchmarks.outage [--set DIR --dataset DIR]

Trains on the synthetic set with newcomers (`benchmarks.missing`), serves the model, freezes Redis and sends
transactions of the test period, which the model has not seen, for a minute. Reported: the decision mix in
that minute beside what the same model decides on the same transactions with everything known, and the
recall of the frauds in it beside the rules' alone.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any, Final

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import uvloop

from benchmarks.lakes import CommandError, command
from benchmarks.quality_set import newcomers_set
from benchmarks.serving_load import Load, at_rate, http_request
from benchmarks.serving_services import start
from bentos.rules.ruleset import DEFAULT_RULES, load_rules
from datasets.folder import read_dataset_transactions
from embedded.processes import stop_on_sigterm
from embedded.redis_server import start_redis
from fraud.contract.answer import Answer
from fraud.contract.transaction import encode_transaction
from stores.lake import transactions_from_table
from stores.models import model_folder, newest_version
from stores.settings import settings
from training.disturbed import decided
from training.missing import MOST_STOPPED
from training.model import Model
from training.rows import Rows, TrainingSetError, read_rows
from training.split import Span

RATE: Final = 300
SECONDS: Final = 60
_decode = msgspec.json.Decoder(Answer).decode


def trained(home: Path, folder: Path, more: list[str]) -> tuple[Model, dict[str, Any]]:
    """Train and save a model in `home` by the users' own command."""
    words = ["-m", "training.train", "--dataset", str(folder), "--champion", "--test-days", "14", *more]
    command(words, os.environ | {"TOLLGATE_HOME": str(home), "TOLLGATE_RESULTS": str(home / "results")})
    version = newest_version(home)
    assert version is not None
    saved = model_folder(home, version)
    manifest = json.loads((saved / "manifest.json").read_bytes())
    text = (saved / "model.txt").read_text(encoding="utf-8")
    return Model(text, tuple(manifest["features"]), manifest["calibration"]), manifest


def of_the_minute(rows: Rows, manifest: dict[str, Any]) -> Rows:
    """As many transactions of the test period as a minute takes, from its beginning."""
    ends = [manifest["split"]["test"][end].removesuffix("Z") for end in ("start", "end")]
    span = Span(*[int(np.datetime64(end, "us").astype(np.int64)) for end in ends])
    late = rows.take(rows.mature & span.mask(rows.event_us))
    return late.take(np.arange(len(late)) < RATE * SECONDS)


def bodies(dataset: Path, ids: list[str]) -> list[bytes]:
    """The requests of these transactions, in their order."""
    table = read_dataset_transactions(dataset)
    places = pc.index_in(pa.array(ids), table.column("transaction_id").combine_chunks())
    return [encode_transaction(each) for each in transactions_from_table(table.take(places))]


def frozen_minute(home: Path, requests: list[bytes]) -> Load:
    """Send the requests while Redis is frozen."""
    server = start_redis(home / "redis", durable=True)
    try:
        service = start("tollgate", home, server.url)
        try:
            time.sleep(2)
            wire = [http_request(service.port, "/v1/score", body) for body in requests]
            os.kill(server.pid, signal.SIGSTOP)
            try:
                return uvloop.run(
                    at_rate(service.port, wire, rate=RATE, connections=64, keep=True, patience=20, repeat=5)
                )
            finally:
                os.kill(server.pid, signal.SIGCONT)
        finally:
            service.stop()
    finally:
        server.stop()


def figures(load: Load, rows: Rows, model: Model, manifest: dict[str, Any]) -> dict[str, Any]:
    """What is in results/bench/outage.json."""
    answers = [_decode(body) for _, status, body in load.answers if status == 200]
    ids = rows.described["transaction_id"].tolist()
    fraud = dict(zip(ids, (rows.label > 0).tolist(), strict=True))
    actions = {rule.name: rule.action for rule in load_rules(DEFAULT_RULES).rules}
    known = decided(model, manifest, rows, None)
    usual = float((known.review | known.block).mean())
    mix = Counter(answer.decision for answer in answers)
    stopped = 1 - mix["APPROVE"] / max(len(answers), 1)
    frauds = [answer for answer in answers if fraud[answer.transaction_id]]

    def by_rule(answer: Answer) -> bool:
        return any(actions.get(name) in ("block", "review") for name in answer.rules)

    return {
        "requests": len(rows),
        "answered": len(answers),
        "refused": {str(status): count for status, count in load.statuses.items() if status != 200},
        "unanswered": load.unanswered,
        "degraded": sum(bool(answer.degraded) for answer in answers),
        "p99_ms": load.milliseconds(99),
        "mix": {name: mix[name] / max(len(answers), 1) for name in ("APPROVE", "REVIEW", "BLOCK")},
        "stopped": stopped,
        "stopped_by_rules_alone": float(np.mean([by_rule(answer) for answer in answers])),
        "stopped_undisturbed": usual,
        "times_undisturbed": stopped / usual if usual else None,
        "frauds": len(frauds),
        "recall": float(np.mean([answer.decision != "APPROVE" for answer in frauds])),
        "recall_of_rules_alone": float(np.mean([by_rule(answer) for answer in frauds])),
        "recall_undisturbed": float((known.review | known.block)[rows.label > 0].mean()),
    }


def main(argv: list[str] | None = None) -> int:
    """Run the minute and write what came out; 1 if the mix left its bound or a request got no answer."""
    stop_on_sigterm()
    parser = argparse.ArgumentParser(prog="python -m benchmarks.outage", description=__doc__)
    parser.add_argument("--set", type=Path, help="a training set with newcomers (default: built once)")
    parser.add_argument("--dataset", type=Path, help="the dataset that it was built from")
    options, more = parser.parse_known_args(argv)
    try:
        if options.set is None:
            options.set, truth = newcomers_set()
            options.dataset = truth.parent
        with tempfile.TemporaryDirectory(prefix="tollgate-outage-") as scratch:
            home = Path(scratch) / "home"
            model, manifest = trained(home, options.set, more)
            rows = of_the_minute(read_rows(options.set), manifest)
            load = frozen_minute(home, bodies(options.dataset, rows.described["transaction_id"].tolist()))
            report = figures(load, rows, model, manifest)
    except (CommandError, TrainingSetError) as error:
        print(f"outage: {error}", file=sys.stderr)
        return 1
    out = settings().results / "bench" / "outage.json"
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(report, indent=1) + "\n")
    print(json.dumps(report, indent=1))
    within = (report["times_undisturbed"] or 0.0) <= MOST_STOPPED["everything"]
    return 0 if within and report["answered"] == report["requests"] else 1


if __name__ == "__main__":
    sys.exit(main())
