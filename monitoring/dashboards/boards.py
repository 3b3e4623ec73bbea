"""The five dashboards, as tables of panels. docs/monitoring.md says who looks at which."""

from __future__ import annotations

from typing import Final

from monitoring.dashboards.panels import Board, Panel


def _rate(metric: str, by: str = "", where: str = "") -> str:
    grouping = f" by ({by})" if by else ""
    return f"sum{grouping} (rate({metric}{where}[$__rate_interval]))"


def _quantile(share: float, metric: str, by: str = "", where: str = "") -> str:
    grouping = f"le, {by}" if by else "le"
    return (
        f"histogram_quantile({share}, sum by ({grouping}) (rate({metric}_bucket{where}[$__rate_interval])))"
    )


_DECISIONS: Final = "tollgate_decisions_total"
_TOTAL: Final = '{stage="total"}'
_AGE: Final = "time() - tollgate_job_last_success_timestamp_seconds"

SERVICE: Final = Board(
    "tollgate-service", "Tollgate: service", "Is scoring up, fast and whole? For operators.",
    (
        ("Now", (
            Panel("Transactions per second", {"": _rate(_DECISIONS)}, "reqps", "stat", width=4),
            Panel("p99", {"": _quantile(0.99, "tollgate_stage_seconds", where=_TOTAL)}, "s", "stat", width=4, limits=(0.02, 0.05)),
            Panel("Errors, last hour", {"": "tollgate:errors:ratio1h"}, "percentunit", "stat", "the objective allows 0.01%", 4, (0.0001, 0.001)),
            Panel("Budget burn", {"": "tollgate:errors:ratio1h / 0.0001"}, "short", "stat", "1 spends the month's budget in a month", 4, (3, 14.4)),
            Panel("Degraded", {"": "tollgate:degraded:ratio5m"}, "percentunit", "stat", width=4, limits=(0.01, 0.05)),
            Panel("Open breakers", {"": "count(tollgate_breaker_state == 2) or vector(0)"}, "short", "stat", width=4, limits=(1, 1)),
        )),
        ("Requests", (
            Panel("Requests by status", {"{{route}} {{status}}": _rate("tollgate_requests_total", "route, status")}, "reqps", width=12),
            Panel("Latency", {f"p{n}": _quantile(n / 100, "tollgate_stage_seconds", where=_TOTAL) for n in (50, 95, 99)}, "s", width=12),
        )),
        ("Inside", (
            Panel("p99 of each stage", {"{{stage}}": _quantile(0.99, "tollgate_stage_seconds", "stage")}, "s", about="queue: too few workers; features: Redis; model: a large model"),
            Panel("Micro-batch size", {"p50": _quantile(0.5, "tollgate_batch_size"), "p99": _quantile(0.99, "tollgate_batch_size")}),
            Panel("Under way", {"in flight": "sum(tollgate_in_flight)", "events waiting": "sum(tollgate_events_waiting)", "decisions held": "sum(tollgate_log_held)"}),
            Panel("Degraded by cause", {"{{cause}}": _rate("tollgate_degraded_total", "cause")}, "ops"),
            Panel("Breakers", {"{{breaker}}": "max by (breaker) (tollgate_breaker_state)"}, about="0 closed, 1 half-open, 2 open"),
            Panel("Repeats", {"{{outcome}}": _rate("tollgate_repeated_total", "outcome")}, "ops", about="answered from memory, or refused for another body"),
        )),
    ),
)  # fmt: skip

FEATURES: Final = Board(
    "tollgate-features", "Tollgate: features", "Does serving see fresh values, equal to training's? For data engineers.",
    (
        ("Freshness", (
            Panel("Profiles computed", {"": _AGE + '{job_name="profiles"}'}, "s", "stat", "stale after 48 hours", 6, (7 * 3600, 36 * 3600)),
            Panel("Velocity behind", {"": "max(tollgate_stream_lag_seconds)"}, "s", "stat", width=6, limits=(5, 30)),
            Panel("Vectors that differ", {"": "tollgate_parity_mismatched_share"}, "percentunit", "stat", "served against rebuilt", 6, (0.0001, 0.001)),
            Panel("Gates that block", {"": "sum(tollgate_gate_blocked) or vector(0)"}, "short", "stat", width=6, limits=(1, 1)),
        )),
        ("Reads", (
            Panel("Reads by what was found", {"{{status}}": _rate("tollgate_feature_status_total", "status")}, "ops", width=12),
            Panel("Share not fresh, by view", {"{{view}}": _rate("tollgate_feature_status_total", "view", '{status!="fresh"}') + " / " + _rate("tollgate_feature_status_total", "view")}, "percentunit", width=12),
        )),
        ("Runs", (
            Panel("Since the last success", {"{{job_name}}": _AGE}, "s", width=12),
            Panel("Duration", {"{{job_name}}": "tollgate_job_last_duration_seconds"}, "s", width=6),
            Panel("Failures", {"{{job_name}}": "increase(tollgate_job_failures_total[1d])"}, width=6),
        )),
    ),
)  # fmt: skip

STREAM: Final = Board(
    "tollgate-stream", "Tollgate: stream", "Does every event reach the velocity states, and how soon? For operators.",
    (
        ("Flow", (
            Panel("Events", {"partition {{partition}}": _rate("tollgate_stream_events_total", "partition")}, "ops"),
            Panel("Behind the log", {"partition {{partition}}": "tollgate_stream_lag_seconds"}, "s"),
            Panel("Arrival to visible in Redis", {f"p{n}": _quantile(n / 100, "tollgate_stream_freshness_seconds") for n in (50, 99)}, "s"),
        )),
        ("What was set aside", (
            Panel("Dead letters", {"partition {{partition}}": "increase(tollgate_stream_dead_letters_total[1h])"}),
            Panel("Duplicates", {"partition {{partition}}": _rate("tollgate_stream_duplicates_total", "partition")}, "ops"),
            Panel("Late events", {"partition {{partition}}": _rate("tollgate_stream_late_events_total", "partition")}, "ops"),
        )),
        ("Kafka", (
            Panel("Sent to their customer's partition", {"partition {{partition}}": _rate("tollgate_stream_misplaced_total", "partition")}, "ops"),
            Panel("Records without a value", {"partition {{partition}}": _rate("tollgate_stream_tombstones_total", "partition")}, "ops"),
            Panel("Partitions that nobody reads", {"": "max(tollgate_stream_unread_partitions)"}, "short", "stat", width=6, limits=(1, 1)),
            Panel("Authorizations scored from the log", {"": _rate("tollgate_stream_scored_total")}, "ops"),
        )),
        ("States", (
            Panel("Entities held", {"{{entity}}": "sum by (entity) (tollgate_stream_entities)"}),
            Panel("Bytes held", {"{{entity}}": "sum by (entity) (tollgate_stream_state_bytes)"}, "bytes"),
            Panel("Writes", {"written": _rate("tollgate_stream_states_written_total"), "already newer": _rate("tollgate_stream_states_refused_total"), "sink retries": _rate("tollgate_stream_sink_retries_total"), "read retries": _rate("tollgate_stream_read_retries_total")}, "ops"),
        )),
    ),
)  # fmt: skip

MODEL: Final = Board(
    "tollgate-model", "Tollgate: model", "Does the model still fit what it sees? For model owners.",
    (
        ("Now", (
            Panel("The weekly report asks for", {"": "tollgate_drift_action"}, "short", "stat", "0 nothing, 1 watch, 2 recalibrate, 3 retrain", 6, (1, 2)),
            Panel("Columns that moved", {"": "tollgate_drift_columns"}, "short", "stat", width=6, limits=(1, 10)),
            Panel("Average precision, matured", {"": "tollgate_matured_average_precision"}, "short", "stat", width=6),
            Panel("Expected over observed", {"": "tollgate_matured_calibration"}, "short", "stat", "1 is calibrated", 6),
        )),
        ("Scores", (
            Panel("Scores", {"{{le}}": _rate("tollgate_score_bucket", "le")}, "short", "heatmap", width=12),
            Panel("Decisions by variant", {"{{variant}} {{decision}}": _rate(_DECISIONS, "variant, decision")}, "ops", width=12),
        )),
        ("Over weeks", (
            Panel("Average precision and share caught", {"average precision": "tollgate_matured_average_precision", "caught": "tollgate_matured_caught"}),
            Panel("Strongest column over its limit", {"": "tollgate_drift_strength"}, about="from 1 on it counts as drift"),
            Panel("Model age", {"{{version}}": "max by (version) (tollgate_model_age_seconds)"}, "s"),
            Panel("Refused line-ups and rules", {"model": "max(tollgate_model_refused)", "rules": "max(tollgate_rules_refused)", "demoted rules": "max(tollgate_rules_demoted)"}),
        )),
    ),
)  # fmt: skip

BUSINESS: Final = Board(
    "tollgate-business", "Tollgate: business", "What does the gate stop, and whom does it bother? For everybody.",
    (
        ("Last matured week", (
            Panel("Fraud that met a review or a block", {"": 'tollgate_matured_fraud_amount{outcome="met"}'}, "currencyUSD", "stat", width=6),
            Panel("Fraud that passed", {"": 'tollgate_matured_fraud_amount{outcome="passed"}'}, "currencyUSD", "stat", width=6),
            Panel("Honest customers bothered", {"": "tollgate_matured_insult_share"}, "percentunit", "stat", "genuine transactions that were not approved", 6, (0.005, 0.02)),
            Panel("Share of frauds caught", {"": "tollgate_matured_caught"}, "percentunit", "stat", width=6),
        )),
        ("Today", (
            Panel("Alerts per hour", {"{{decision}}": 'sum by (decision) (increase(tollgate_decisions_total{decision!="APPROVE"}[1h]))'}, width=12),
            Panel("Share blocked", {"today": "tollgate:blocked:ratio15m", "yesterday": "tollgate:blocked:ratio15m offset 1d"}, "percentunit", width=12),
        )),
        ("Rules and labels", (
            Panel("Rules that held", {"{{rule}} {{action}}": "sum by (rule, action) (increase(tollgate_rule_hits_total[1h]))"}, width=12),
            Panel("Labels that arrived", {"{{source}}": "sum by (source) (increase(tollgate_labels_total[1d]))"}, width=12),
        )),
    ),
)  # fmt: skip

BOARDS: Final = (SERVICE, FEATURES, STREAM, MODEL, BUSINESS)
