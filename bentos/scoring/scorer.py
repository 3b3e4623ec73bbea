"""One micro-batch from transactions to answers: features, vector, models, rules, log, effects.

Order matters: claim and features in one Redis round trip; then everything without waiting; then
the decision log takes the batch; then the effects are sent; only then do answers leave. Each
stage that fails is replaced by the next best thing, and the answer says so in `degraded`.
"""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import cast

import msgspec
import numpy as np

from bentos.base.guarded import guarded
from bentos.base.metrics import Metrics
from bentos.base.problem import Problem
from bentos.base.stages import Stages, Watch
from bentos.base.work import Work
from bentos.effects.event_sinks import Sink, open_sinks
from bentos.effects.outbox import Effect
from bentos.features.declared_rows import DeclaredRows
from bentos.features.online_features import OnlineRows
from bentos.features.online_reader import OnlineReader, Read
from bentos.features.overlay import Overlay
from bentos.features.recent_events import RecentEvents
from bentos.features.warm_up import warm_up
from bentos.log.decision_log import DecisionLog, log_row
from bentos.log.head_places import places_of
from bentos.log.heads import Heads
from bentos.models.deployment import Scoring
from bentos.models.model_scores import ModelScores, Scored
from bentos.models.risk_factors import Reason, in_words
from bentos.once.once import Claimed, Once
from bentos.rules.rule_room import RuleRoom
from bentos.wire.breaker import STATES
from fraud.contract.answer import Answer, Decision
from fraud.decision.decide import decide
from fraud.decision.rules import Rule
from fraud.features.on_demand import packed_rows, request_rows
from fraud.features.phrases import RULE_CODE
from fraud.features.request import TIME_COLUMNS, request_values
from fraud.state.observation import use_identity
from stores.event_log import partition_of
from stores.keys import open_keys
from stores.models import Floats
from stores.settings import Settings
from stores.spool import SpoolFull

_log = logging.getLogger("tollgate.scoring")
_encode_answer = msgspec.json.Encoder().encode


class Scorer:
    """Everything one worker needs to decide. One event loop owns it."""

    def __init__(self, chosen: Settings, metrics: Metrics, stages: Stages) -> None:
        self._partitions = chosen.event_log.partitions
        self._publishes = chosen.serve.predictions
        self._clock_us = 0
        self.metrics = metrics
        self.stages = stages
        self.keys = open_keys(chosen)
        use_identity(self.keys.identity)  # what is noted here must be known again in the stream's states
        self.once = Once(chosen, metrics, self.keys.seal("answers"))
        self.reader = OnlineReader(chosen, metrics)
        self.recent = RecentEvents(chosen.feast.project, chosen.serve.burst_seconds)
        self.overlay = Overlay(self.recent)
        self.scores = ModelScores(chosen)
        self.rules = RuleRoom(Path(chosen.serve.rules_file) if chosen.serve.rules_file else None)
        heads = Heads(places_of(chosen), self.keys.seal("heads"))
        self.log = DecisionLog(chosen.home, self.keys.seal("log"), heads)
        self.sinks: list[Sink]
        self._answers, self.sinks = open_sinks(
            chosen,
            self.keys.seal("outbox"),
            lambda what, number: metrics.count("unverified_total", what, by=number),
        )
        # The label pairs of feature_status_total are counted in C, a row at a time.
        self._statuses: Counter[tuple[str, str]] = Counter()
        metrics.counters["feature_status_total"] = cast("dict[tuple[str, ...], int]", self._statuses)

    async def start(self) -> None:
        warm_up()
        if self.reader.own is not None:
            self.reader.own.warm_up()
        self.rules.refresh()
        await self.scores.room.refresh()
        for sink in self.sinks:
            await sink.start()
        self.once.start(owes=self._answers.spooled > 0)

    # -- a batch -------------------------------------------------------------------------

    async def run(self, batch: list[Work]) -> None:
        """Decide `batch`; every work is answered or refused, whatever happens."""
        watch = self.stages.batch(batch)
        try:
            await self._run(batch, watch)
        except Exception as error:  # noqa: BLE001  # the last resort: no request may hang
            _log.exception("a batch failed")
            watch.failed(error)
            for work in batch:
                work.refuse(Problem(503, "(service)", "could not decide; try again", retry_after=1))
        finally:
            watch.end()
            for work in batch:
                self.once.finished(work)

    async def _run(self, batch: list[Work], watch: Watch) -> None:
        self._put_in_order(batch)
        claimed, found = await self._claim_and_read(batch)
        kept, online = claimed.to_decide, found.online
        watch.passed("features", kept, found.shortfall)
        if not kept:
            return
        if not (self.log.accepting and all(sink.accepting for sink in self.sinks)):
            for work in kept:
                work.refuse(Problem(503, "(service)", "the decision log takes no more", retry_after=5))
            return

        shortfalls = [found.shortfall] if found.shortfall else []
        matrix = vector(kept, online, self.reader.own, self.recent)
        watch.passed("vector")
        remote = await self.scores.ask(matrix, shortfalls)
        with await self.once.turn(claimed) as turn:
            if turn.shortfall:
                shortfalls.append(turn.shortfall)
            places = turn.places
            if len(places) < len(kept):
                kept, online, matrix = [kept[place] for place in places], online.take(places), matrix[places]
                remote = (remote[0], remote[1][places]) if remote is not None else None
            if kept:
                self._decide(kept, online, matrix, remote, shortfalls, watch)

    def _put_in_order(self, batch: Sequence[Work]) -> None:
        """Say when each was known: strictly one after the other, but where the past is replayed."""
        clock = max(self._clock_us, time.time_ns() // 1000)
        for work in batch:
            if not work.replayed:
                clock += 1
                work.known_us = clock
        self._clock_us = clock

    async def _claim_and_read(self, batch: list[Work]) -> tuple[Claimed, Read]:
        """Claim the batch's ids and read its features, in one round trip: what is left to decide, with
        its rows.
        """
        noted = self.recent.note(batch)
        found = await self.reader.read(batch, self.once.claims(batch), noted.commands)
        claimed = await self.once.settle(batch, found.replies, found.ask)
        before = self.recent.before(batch, noted, found.replies, found.last)
        if len(claimed.places) < len(batch):
            found.online = found.online.take(claimed.places)
            before = {row: before[place] for row, place in enumerate(claimed.places) if place in before}
        if before:
            self.overlay.put(claimed.to_decide, found.online, before)
        return claimed, found

    def _decide(
        self,
        batch: Sequence[Work],
        online: OnlineRows,
        matrix: Floats,
        remote: tuple[str, Floats] | None,
        shortfalls: list[str],
        watch: Watch,
    ) -> None:
        """Model, rules and everything that ends in an answer, without waiting in between."""
        scored = self.scores.of(batch, matrix, online.status, remote)
        watch.passed("model", scored)
        hits = self._hits(batch, matrix, scored.scores)
        watch.passed("rules", hits)
        self._finish(batch, online, matrix, scored, hits, shortfalls)
        watch.passed("finish")
        watch.answered(batch)

    def _hits(
        self, batch: Sequence[Work], matrix: Floats, scores: Sequence[float | None]
    ) -> list[list[Rule]]:
        ruleset, breaker = self.rules.current, self.rules.breaker
        errors = ruleset.errors
        every = [
            ruleset.hits(
                work.transaction, work.amount_reference, matrix[place], scores[place], work.lateness_seconds
            )
            for place, work in enumerate(batch)
        ]
        if ruleset.errors > errors:
            self.metrics.count("rule_errors_total", by=ruleset.errors - errors)
        breaker.record_cards(
            (work.transaction.card_id, [rule.name for rule in hits if rule.action == "block"])
            for work, hits in zip(batch, every, strict=True)
        )
        if breaker.open_rules:
            every = [
                [rule.softened() if breaker.is_open(rule.name) else rule for rule in hits] for hits in every
            ]
        for hits in every:
            for rule in hits:
                self.metrics.count("rule_hits_total", rule.name, rule.action)
        return every

    def _finish(
        self,
        batch: Sequence[Work],
        online: OnlineRows,
        matrix: Floats,
        scored: Scored,
        every: Sequence[list[Rule]],
        shortfalls: list[str],
    ) -> None:
        """Decide, explain, log, send, answer."""
        wall_us = time.time_ns() // 1000
        # What every answer of this batch shares.
        shared = shortfalls + ([scored.degraded] if scored.degraded else [])
        if self.log.held:
            shared.append("decision_log:held_in_memory")
        if any(sink.spooled for sink in self.sinks):
            shared.append("event_log:spooled")
        demoted = self.rules.breaker.open_rules
        shared += [f"rule_demoted:{name}" for name in sorted(demoted)]
        answers, rows, decisions = [], [], []
        count = self.metrics.count
        for place, work in enumerate(batch):
            scoring, score, hits = scored.models[place], scored.scores[place], every[place]
            status, limits = online.status[place], scored.limits[place]
            decision = decide(score, limits.thresholds if limits else None, hits)
            degraded = shared
            if "stale" in status.values():
                degraded = shared + [f"stale:{view}" for view, state in status.items() if state == "stale"]
            if work.asked is not None and work.asked.time.remark is not None:
                degraded = [*degraded, work.asked.time.remark]
            reasons = self._reasons(scoring, matrix[place : place + 1], hits, decision)
            variant = scored.variants[place]
            latency = round((perf_counter() - work.arrived) * 1000, 3)
            version = scoring.version if scoring else None
            answer = Answer(
                work.own_id, score, decision, [reason.phrase for reason in reasons],
                [rule.name for rule in hits], version, variant, status, degraded, latency,
                list(dict.fromkeys(reason.code for reason in reasons)),
            )  # fmt: skip
            answers.append(_encode_answer(answer))
            decisions.append(decision)
            rows.append(
                log_row(work, matrix[place], answer, online.timestamps[place], scored.shadows[place],
                        self.rules.current.version, wall_us)
            )  # fmt: skip
            count("decisions_total", decision, variant)
            if score is not None:
                self.metrics.histogram("score", variant).observe(score)
            self._statuses.update(status.items())
            for reason in degraded:
                count("degraded_total", reason.partition(":")[0])
        try:
            self.log.append(rows)
            values = [self.once.value(work, answer) for work, answer in zip(batch, answers, strict=True)]
            published = answers if self._publishes else [b""] * len(batch)
            batch_effects = [
                Effect(
                    work.key, value, partition_of(work.transaction.customer_id, self._partitions),
                    work.event(decision), work.transaction.customer_id, said,
                )
                for work, value, decision, said in zip(batch, values, decisions, published, strict=True)
            ]  # fmt: skip
            sent = all([sink.send(batch_effects) for sink in self.sinks])  # noqa: C419  # every one, not until the first
        except SpoolFull:
            for work in batch:
                work.refuse(Problem(503, "(service)", "the decision log takes no more", retry_after=5))
            return
        if not sent:
            count("events_spooled_total", by=len(batch))
        self.once.publish(batch, answers, values, sent=sent)

    def _reasons(
        self, scoring: Scoring | None, row: Floats, hits: Sequence[Rule], decision: Decision
    ) -> list[Reason]:
        if decision == "APPROVE":
            return []
        reasons = [
            Reason(f"rule {rule.name}: {rule.reason}", RULE_CODE)
            for rule in hits
            if rule.action in ("block", "review")
        ]
        if scoring is not None:
            own = scoring.rows(row)
            reasons += in_words(scoring.model.manifest.features, own[0], scoring.attribution.of(own))
        return reasons

    # -- around the batches --------------------------------------------------------------

    async def tick(self) -> None:
        """Once a second: notice changes of models and rules, retry what waits, set the gauges."""
        for look in (self.keys.refresh, self.rules.refresh, self.reader.plans.refresh, self.scores.room.look):
            await guarded("look", look)
        await guarded("journal", self.log.tick)
        for sink in self.sinks:
            await guarded("sink", sink.tick)
        await guarded("once", partial(self.once.tick, owes=self._answers.late))
        metrics, line = self.metrics, self.scores.room.current
        metrics.gauge("breaker_state", STATES.index(self.reader.breaker.state), "redis")
        metrics.gauge("breaker_state", STATES.index(self.scores.breaker.state), "model")
        metrics.gauge("log_held", self.log.held)
        metrics.gauge("log_heads_late_seconds", self.log.heads_late)
        metrics.gauge("events_waiting", sum(sink.spooled for sink in self.sinks))
        metrics.gauge("model_refused", self.scores.room.error is not None)
        metrics.gauge("registry_refused", self.reader.plans.error is not None)
        metrics.gauge("rules_refused", self.rules.error is not None)
        metrics.gauge("keys_refused", self.keys.error is not None)
        metrics.gauge("rules_demoted", len(self.rules.breaker.open_rules))
        metrics.gauges["model_age_seconds"].clear()
        if line.champion is not None:
            metrics.gauge("model_age_seconds", time.time() - line.since, line.champion.version)

    async def close(self) -> None:
        """Drain everything that waits; call it after the last batch."""
        for sink in self.sinks:
            await sink.close()
        self.once.close(owes=self._answers.spooled > 0)
        self.log.close()
        await self.scores.close()
        await self.reader.close()
        await self.stages.close()


def vector(
    batch: Sequence[Work],
    online: OnlineRows,
    declared: DeclaredRows | None = None,
    recent: RecentEvents | None = None,
) -> Floats:
    """The rows of `batch` in the order of the served vector; the works then know the times at which they
    count, and `recent` those of works that count later than they were noted."""
    requests = request_rows(
        [
            request_values(
                work.transaction, work.event_ms, work.amount_reference, work.lateness_ms, work.identity
            )
            for work in batch
        ]
    )
    own = packed_rows(online.words, online.ends, requests, online.inputs)
    for work, (event_ms, lateness_ms), known_us in zip(
        batch, requests[:, TIME_COLUMNS].tolist(), online.known_us, strict=True
    ):
        if work.event_ms != event_ms or work.known_us != known_us:
            work.event_ms, work.lateness_ms, work.known_us = event_ms, lateness_ms, known_us
            if recent is not None:
                recent.moved(work)
    standard = np.concatenate((online.profiles, own), axis=1)
    if declared is None or online.own is None:
        return standard
    return np.concatenate((standard, declared.columns(online.own, standard)), axis=1)
