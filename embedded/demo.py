"""The whole loop on one machine: `make demo`.

Transactions pass through every part of the platform: lake, Spark aggregates, Feast, Redis;
event log, Bytewax, Redis; HTTP, BentoML, LightGBM, decision; decisions, Evidently, parity.
Nothing here is a stand-in: each step runs what the users' own commands run.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import orjson

from datasets.folder import read_info
from embedded.demo_plan import SMALL, DemoError, Options, Plan, check_trainable, plan, prepare_home
from embedded.processes import Child, ProcessFailedError, stop_on_sigterm
from embedded.redis_server import RedisServer, free_port, password_file, start_redis
from embedded.replay import ReplayError
from embedded.replayed_days import ReplayedDays
from embedded.steps import MemoryWatch, Steps, note
from embedded.summary import replay_figures, table, write_summary
from fraud.features.entities import CUT_INTERVAL, ENTITIES
from stores.decisions import decisions_folder
from stores.models import model_folder
from stores.settings import Settings, settings

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

_STEPS = 14


class Demo:
    """One run of the loop; `run` returns the summary."""

    def __init__(self, options: Options) -> None:
        # Free ports, so that a demo never meets a platform that is up. Set before the settings
        # are read, and inherited by every child process.
        os.environ["TOLLGATE_REDIS_URL"] = f"redis://127.0.0.1:{free_port()}/0"
        os.environ["TOLLGATE_SERVE_PORT"] = str(free_port())
        os.environ["TOLLGATE_SERVE_REPLAY"] = "true"  # it scores days of the past, at their own times
        settings.cache_clear()
        self.options = options
        self.config: Settings = settings()
        self.steps = Steps(_STEPS)
        self.summary: dict[str, Any] = {}
        self._redis: RedisServer | None = None
        self._children: list[Child] = []

    def run(self) -> dict[str, Any]:
        """Run every step; whatever was started is ended, also when a step fails."""
        prepare_home(self.config.home, self.config.results, self.config.run)
        secret = password_file(self.config.home.absolute() / "redis")
        os.environ["TOLLGATE_REDIS_URL"] += f"?password_file={quote(str(secret))}"
        settings.cache_clear()
        self.config = settings()
        with MemoryWatch() as memory:
            try:
                self._loop()
            finally:
                self._stop()
        self.summary |= {
            "steps": self.steps.seconds,
            "seconds": round(self.steps.total_seconds, 1),
            "peak_memory_mib": round(memory.peak_mib, 1),
        }
        write_summary(self.config.results / "summary.json", self.summary)
        return self.summary

    def _loop(self) -> None:
        step = self.steps.step
        with step("dataset", "transactions onto the contract"):
            dataset = self._dataset()
        check_trainable(dataset)
        chosen = plan(dataset, self.options, timedelta(days=self.config.history.label_maturity_days))
        with step("load", f"history until {chosen.replay_from:%Y-%m-%d} into the lake"):
            self._load(dataset, chosen)
        with step("apply", "feast apply"):
            from feature_repo.store import apply_definitions

            apply_definitions()
        with step("spark", "Spark, local"):
            from feature_repo.spark import spark_session

            spark = spark_session("demo")
        with step("aggregates", "aggregates of every 6-hour cut"):
            self._cuts(chosen, spark)
        with step("velocity", "velocity states of every moment"):
            self._velocity(chosen.history_from, chosen.replay_from, spark)
        with step("training-set", "point-in-time training set through Feast"):
            training_set = self._training_set(chosen, spark)
        with step("train", "LightGBM, calibrated, with thresholds"):
            version = self._train(training_set)
        with step("online", "Redis: last cut materialized, stream seeded, service up"):
            self._online(chosen)
        with step(
            "replay",
            f"{chosen.replay_from:%Y-%m-%d} to {chosen.replay_to:%Y-%m-%d %H:%M}, scored in event order",
        ):
            result = ReplayedDays(self.config, chosen, spark, self._children).run(dataset)
        with step("drain", "service and stream ended, logs drained"):
            self._drain()
        frauds = self._frauds(dataset)
        with step("parity", "served vectors against a point-in-time rebuild"):
            parity = self._parity(chosen, spark)
        spark.stop()
        with step("drift", "Evidently against the training reference"):
            drift = self._drift(version)
        with step("summary", "figures"):
            self.summary |= {
                "dataset": chosen.dataset,
                "model_version": version,
                "leak": self._leak(version),
                "rejected": self._rejected(dataset),
            }
            self.summary |= replay_figures(result, frauds)
            self.summary |= {"parity": parity, "drift": drift}
            if result.first_errors:
                note("errors: " + "; ".join(result.first_errors))

    def _dataset(self) -> Path:
        options, folder = self.options, self.config.home / "datasets"
        if options.data is not None:
            if options.mapping is None:
                raise DemoError("DATA needs a MAPPING that says which columns become which fields")
            out = folder / options.mapping.stem
            self._command(
                "datasets.importer", "--data", options.data, "--mapping", options.mapping, "--out", out
            )
        else:
            out = folder / "synthetic"
            self._command(
                "datasets.synthetic", "--customers", options.customers, "--days", options.days,
                "--seed", options.seed, "--start", options.first_day().isoformat(), "--out", out,
            )  # fmt: skip
        return out

    def _command(self, module: str, *arguments: object) -> None:
        """Run one of the users' commands to its end, passing on what it prints last."""
        from embedded.processes import module_command

        log = self.config.home / "logs" / f"{module}.log"
        child = Child(module, module_command(module, *map(str, arguments)), log)
        try:
            code = child.process.wait()
        finally:
            child.stop()
        if code:
            raise DemoError(f"`python -m {module}` ended with code {code}:\n{child.tail()}")
        last = child.tail().strip().splitlines()
        if last:
            note(last[-1])

    def _load(self, dataset: Path, chosen: Plan) -> None:
        self._command("datasets.load", "--dataset", dataset, "--until", chosen.replay_from.isoformat())

    def _cuts(self, chosen: Plan, spark: SparkSession) -> None:
        from feature_repo.aggregates.grid import cuts_between
        from feature_repo.aggregates.run import run_cuts

        first = chosen.train_from - 2 * CUT_INTERVAL
        cuts = cuts_between(first, chosen.replay_from + timedelta(microseconds=1))
        written = run_cuts(cuts, spark)
        note(f"{len(cuts)} cuts, {sum(written.values()):,} rows")

    def _velocity(self, start: datetime, end: datetime, spark: SparkSession) -> None:
        from feature_repo.velocity_log import build_velocity_log

        written = build_velocity_log(start, end, spark)
        note(f"{sum(written.values()):,} states")

    def _training_set(self, chosen: Plan, spark: SparkSession) -> Path:
        from training.dataset import build_dataset

        out = self.config.home / "training" / "set"
        built = build_dataset(
            chosen.train_from, chosen.replay_from - timedelta(days=self.config.history.label_maturity_days),
            as_of=chosen.replay_from, out=out, negatives=chosen.negatives, spark=spark,
        )  # fmt: skip
        note(f"{built.rows:,} rows, {built.frauds:,} known frauds")
        return out

    def _train(self, training_set: Path) -> str:
        options = self.options
        try:
            self._command(
                "training.train", "--dataset", training_set, "--champion", "--on-leak", options.on_leak,
                "--drop", options.drop,
            )  # fmt: skip
        except DemoError as error:
            if "leaking:" not in str(error):
                raise
            raise DemoError(
                f"{error}\nThe demo takes the same options: make demo ... ARGS='--on-leak mark'"
            ) from None
        from training.promote import read_deployment

        return str(read_deployment().champion)

    def _leak(self, version: str) -> dict[str, Any] | None:
        """What the model was suspected for, if it was marked."""
        manifest = model_folder(self.config.home, version) / "manifest.json"
        found: dict[str, Any] | None = orjson.loads(manifest.read_bytes()).get("leak")
        return found

    def _online(self, chosen: Plan) -> None:
        from embedded.platform import start_service, start_stream
        from jobs.cut import materialize_cut

        address = self.config.redis.address
        self._redis = start_redis(
            self.config.home / "redis", address.nodes[0][1], durable=True, password=address.login.password
        )
        written = materialize_cut(chosen.replay_from - CUT_INTERVAL)
        note(f"{written:,} profiles online")
        self._children.append(start_stream(self.config))
        note(f"{self._seed(chosen):,} states seeded")
        self._children.append(start_service(self.config))

    def _seed(self, chosen: Plan) -> int:
        from feature_repo.velocity_log import newest_states
        from streaming.states.seed import seed_states

        states = (
            (entity.name, key, state)
            for entity in ENTITIES
            for key, state in newest_states(entity, chosen.replay_from)
        )
        return seed_states(self.config, states, wait_seconds=120)

    def _drain(self) -> None:
        while self._children:
            child = self._children.pop()  # the service first: what it still logs needs the stream
            code = child.stop()
            if code not in (0, -15, 143):
                note(f"{child.name} ended with code {code}, see {child.log}")
        self._command("bentos.log.decision_files")  # what the service had journalled but not yet filed

    def _parity(self, chosen: Plan, spark: SparkSession) -> dict[str, Any]:
        from monitoring.decisions import read_decisions
        from monitoring.parity.comparison import compare
        from monitoring.parity.report import write_report
        from stores.declared import served_vector
        from training.dataset import rebuild

        self._velocity(chosen.replay_from, chosen.replay_to, spark)
        served = read_decisions(
            decisions_folder(self.config.home), start=chosen.replay_from, end=chosen.replay_to
        )
        report = compare(served, rebuild(served, spark=spark), served_vector())
        write_report(report, self.config.results / "parity")
        return report.summary()

    def _drift(self, version: str) -> dict[str, Any]:
        self._command("monitoring.drift", "--out", self.config.results / "drift" / "replay")
        found = orjson.loads((self.config.results / "drift" / "replay" / "drift.json").read_bytes())
        return {
            "report": "drift/replay/drift.html",
            "action": found["action"],
            "drifted_features": found["drifted_features"],
        }

    def _frauds(self, dataset: Path) -> set[str]:
        from datasets.folder import read_dataset_labels

        labels = read_dataset_labels(dataset)
        return set(labels.filter(labels["is_fraud"])["transaction_id"].to_pylist())

    def _rejected(self, dataset: Path) -> int:
        return read_info(dataset).rejected

    def _stop(self) -> None:
        while self._children:
            self._children.pop().stop()
        if self._redis is not None:
            self._redis.stop()
            self._redis = None


def worth_opening(config: Settings, version: str) -> Sequence[Path]:
    """Files of the run that a person wants to look at, those that exist."""
    results = config.results
    candidates = (
        results / "summary.json", results / "drift" / "replay" / "drift.html",
        results / "parity" / "parity.html", results / "models" / version / "card.html",
        results / "gates" / "index.html", results / "status.html",
    )  # fmt: skip
    return [path for path in candidates if path.exists()]


def main(arguments: Sequence[str] | None = None) -> int:
    usual = Options()
    parser = argparse.ArgumentParser(prog="python -m embedded.demo", description=__doc__)
    parser.add_argument("--data", type=Path, help="CSV or parquet of your own")
    parser.add_argument("--mapping", type=Path, help="which of its columns become which fields")
    parser.add_argument(
        "--small", action="store_true", help="a little of everything: few customers, one day replayed"
    )
    parser.add_argument("--customers", type=int, default=usual.customers)
    parser.add_argument("--days", type=int, default=usual.days)
    parser.add_argument(
        "--start",
        type=date.fromisoformat,
        help="first day of synthetic history; default: it ends with yesterday",
    )
    parser.add_argument("--replay-days", type=float, default=usual.replay_days)
    parser.add_argument("--train-days", type=int, default=usual.train_days)
    parser.add_argument(
        "--negatives", type=int, default=usual.negatives, help="genuine training rows to keep"
    )
    parser.add_argument(
        "--on-leak", choices=("refuse", "mark"), default=usual.on_leak,
        help="training looks like a leak: end, or go on, marked in card and summary",
    )  # fmt: skip
    parser.add_argument(
        "--drop", default=usual.drop, metavar="NAMES", help="features, by commas, that the model may not read"
    )
    parser.add_argument(
        "--replay-from", type=datetime.fromisoformat, help="start of the replay, with its offset"
    )
    words = list(sys.argv[1:] if arguments is None else arguments)
    if "--small" in words:  # what is asked for beside it comes later, and so holds
        words = [*SMALL, *words]
    chosen = vars(parser.parse_args(words))
    del chosen["small"]
    stop_on_sigterm()
    try:
        demo = Demo(Options(**chosen))
        summary = demo.run()
    except (DemoError, ProcessFailedError, ReplayError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(f"\n{table(summary)}\n\nworth opening:")
    for path in worth_opening(demo.config, summary["model_version"]):
        print(f"  {os.path.relpath(path)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
