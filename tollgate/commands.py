"""What `tollgate` can do: each command with its module, an example, and what usually comes next."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Command:
    """One command: `python -m module fixed...`, explained.

    `checkout`: it writes into a checkout's sources (docs, results of benchmarks), so that an installed wheel
    cannot run it.
    """

    name: str
    module: str
    what: str
    example: str
    then: str
    fixed: tuple[str, ...] = ()
    checkout: bool = False


#: By who runs them, in the order of a first visit.
GROUPS: Final[dict[str, tuple[Command, ...]]] = {
    "Everybody": (
        Command("demo", "embedded.demo", "The whole loop on synthetic or your own transactions.",
                "tollgate demo --small", "open results/summary.json, then `tollgate up`"),
        Command("up", "embedded.platform", "Start Redis, the stream and the service, and leave them serving.",
                "tollgate up", "`tollgate example`, `tollgate status`, `tollgate down`", ("up",)),
        Command("down", "embedded.platform", "End what `tollgate up` started.", "tollgate down", "nothing", ("down",)),
        Command("example", "embedded.example", "Print a payment to try the service with.",
                "tollgate example good | curl -s localhost:3000/v1/score -H 'content-type: application/json' -d @-",
                "`tollgate example bad`"),
        Command("status", "monitoring.status", "Write the status page: what is well, late or away.",
                "tollgate status", "open results/status.html"),
        Command("screens", "monitoring.screens", "Take the pictures of the documentation, with Chromium.",
                "tollgate screens", "look at docs/images", checkout=True),
        Command("figures", "embedded.document_figures", "Write docs/figures.md from what is in results/.",
                "tollgate figures", "read docs/figures.md", checkout=True),
    ),
    "Data engineer": (
        Command("synthetic", "datasets.synthetic", "Generate a synthetic dataset.",
                "tollgate synthetic --customers 500 --days 30 --out .tollgate/datasets/synthetic", "`tollgate load`"),
        Command("import", "datasets.importer", "Map your CSV, parquet, JSON or XML onto the contract of a transaction.",
                "tollgate import --data payments.parquet --mapping mapping.yaml --out .tollgate/datasets/mine",
                "`tollgate load`"),
        Command("rates", "stores.reference_rates", "Check a dated file of reference rates.",
                "tollgate rates rates.yaml", "TOLLGATE_REFERENCE_RATES=rates.yaml, with a new history and a new model"),
        Command("load", "datasets.load", "Put a dataset's history into the lake.",
                "tollgate load --dataset .tollgate/datasets/mine --until 2026-02-12T00:00:00Z", "`tollgate cuts`"),
        Command("feast", "tollgate.feast_here", "Feast's own command on this installation's feature definitions.",
                "tollgate feast apply", "`tollgate feast feature-views list`, `tollgate feast ui`"),
        Command("cuts", "feature_repo.aggregates", "Compute Spark aggregates of every 6-hour cut of a time span.",
                "tollgate cuts --from 2026-01-05T00:00:00Z --to 2026-02-12T00:00:00Z", "`tollgate velocity`"),
        Command("velocity", "feature_repo.velocity_log", "Rebuild the velocity log of a time span.",
                "tollgate velocity --from 2026-01-05T00:00:00Z --to 2026-02-12T00:00:00Z", "`tollgate training-set`"),
        Command("materialize", "jobs.materialize", "Gate, aggregate, gate, materialize and check one cut.",
                "tollgate materialize --cut 2026-02-12T00:00:00Z", "`tollgate status`"),
        Command("gates", "monitoring.gates", "Check data by one gate and say what is wrong with it.",
                "tollgate gates --help", "mend the data, or ask the feed's owner"),
        Command("schedule", "jobs.schedule", "Run the 6-hour, daily and weekly jobs on this machine.",
                "tollgate schedule", "`tollgate status`"),
    ),
    "Data scientist": (
        Command("training-set", "training.dataset", "Build a point-in-time training set through Feast.",
                "tollgate training-set --from 2026-01-13T00:00:00Z --to 2026-02-05T00:00:00Z "
                "--as-of 2026-02-12T00:00:00Z --out .tollgate/training/set", "`tollgate train`"),
        Command("plan", "feature_repo.plan", "Say what `feast apply` would change, before it does.",
                "tollgate plan", "`tollgate feast apply`"),
        Command("feature", "training.explain", "Explain one feature: what it is, and what the model does with it.",
                "tollgate feature customer_txn_count_1h", "`tollgate catalogue`"),
        Command("catalogue", "training.catalogue", "Write docs/features.md, every feature on one page.",
                "tollgate catalogue", "read docs/features.md", checkout=True),
        Command("evidence", "training.evidence", "Write the evidence for a saved model anew.",
                "tollgate evidence --dataset .tollgate/training/set", "open results/models/<version>/card.html"),
        Command("onnx", "training.onnx_export", "Export a saved model as ONNX, with a proof that it scores alike.",
                "tollgate onnx --help", "serve it elsewhere"),
    ),
    "Model owner": (
        Command("train", "training.train", "Train, calibrate and save a model, or refuse and say why.",
                "tollgate train --dataset .tollgate/training/set", "`tollgate promote shadow VERSION`"),
        Command("promote", "training.promote", "Make a model shadow, canary or champion, or go back.",
                "tollgate promote canary 20260212-4745886303 --share 0.1", "`tollgate promote status`"),
        Command("parity", "monitoring.parity", "Compare served vectors with a point-in-time rebuild.",
                "tollgate parity", "open results/parity/parity.html"),
        Command("drift", "monitoring.drift", "Report how a week's decisions drifted from the training reference.",
                "tollgate drift --week 2026-W07", "open results/drift/"),
        Command("experiment-report", "monitoring.experiment", "Compare champion and challenger on live, matured decisions.",
                "tollgate experiment-report", "`tollgate promote champion VERSION`"),
    ),
    "Operator": (
        Command("find-decision", "bentos.tools.find_decision", "One decision as it was made, from the log.",
                "tollgate find-decision --help", "GET /v1/explain says it over HTTP"),
        Command("serve", "embedded.platform", "The scoring service alone, in the foreground.",
                "TOLLGATE_SERVE_WORKERS=2 tollgate serve", "`curl localhost:3000/readyz`", ("serve",)),
        Command("stream", "streaming.flow", "The velocity flow alone, in the foreground.",
                "tollgate stream --drain", "`tollgate status`"),
        Command("score-stream", "streaming.scoring_flow", "Score transactions from the event log instead of HTTP.",
                "tollgate score-stream", "read the predictions topic"),
        Command("seed", "streaming.states.seed", "Send rebuilt velocity states to the flow.",
                "tollgate seed --help", "`tollgate stream`"),
        Command("restore", "jobs.restore", "Bring profiles and states back into an online store that lost them.",
                "tollgate restore", "`tollgate status`"),
        Command("outcomes", "jobs.outcomes", "Settle what became of payments: declined, reversed, refunded and so on.",
                "tollgate outcomes follow", "`tollgate outcomes list`"),
        Command("chargebacks", "jobs.report_files", "Take a CSV of chargebacks as labels.",
                "tollgate chargebacks chargebacks.csv", "`tollgate labels`"),
        Command("labels", "bentos.tools.labels", "List the labels whose transaction is not known.",
                "tollgate labels", "mend the ids, and send them again"),
        Command("letters", "streaming.ingest.dead_letters", "List dead letters, or send them again.",
                "tollgate letters --help", "mend what the reasons name"),
        Command("compact", "streaming.ingest.compact", "Join the arrival log's small files of closed hours.",
                "tollgate compact --help", "nothing"),
        Command("exchange", "jobs.exchange", "Exchange files and state with the other hosts, beside what this one runs.",
                "tollgate exchange --role serve", "`tollgate serve`"),
        Command("audit", "bentos.tools.audit", "Prove that the decision log is whole and unaltered.",
                "tollgate audit", "keep what it prints"),
        Command("backtest-rules", "bentos.tools.backtest_rules", "Run other rules over the decision log.",
                "tollgate backtest-rules --rules mine.yaml", "TOLLGATE_RULES_FILE=mine.yaml tollgate serve"),
        Command("keys", "stores.keys", "Make, rotate and check the keyring that signs what storage holds.",
                "tollgate keys --help", "restart what uses it"),
        Command("dashboards", "monitoring.dashboards", "Write the Grafana dashboards as JSON.",
                "tollgate dashboards --help", "import them in Grafana"),
    ),
}  # fmt: skip

BY_NAME: Final = {command.name: command for group in GROUPS.values() for command in group}
