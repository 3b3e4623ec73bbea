"""Champion against challenger: the estimate, the stopping rule, and the report from a real log."""

from __future__ import annotations

import math
from datetime import UTC, datetime

import numpy as np
import pandas as pd
import pytest

from benchmarks.experiments import DAYS, decisions, verdict
from fraud.decision.experiment import Experiment
from monitoring.experiment.arms import compare
from monitoring.experiment.report import (
    ExperimentError,
    against_shadows,
    began,
    experiment_report,
    html,
    write_report,
)
from monitoring.experiment.sequential import Clusters, Estimate, half_width, judge, sample_ratio, saved
from stores.deployment import Change, Deployment


def test_the_boundary_is_that_of_the_paper() -> None:
    """Waudby-Smith et al. (2024), theorem 2.2, written as it stands there, for a standard deviation of 1."""
    n, alpha = 400, 0.05
    rho2 = (2 * math.log(1 / alpha) + math.log(1 + 2 * math.log(1 / alpha))) / 1_000
    paper = math.sqrt((n * rho2 + 1) / (n**2 * rho2) * 2 * math.log(math.sqrt(n * rho2 + 1) / alpha))
    assert half_width(1 / math.sqrt(n), 1 / math.sqrt(1_000), alpha) == pytest.approx(paper)


def test_looking_every_day_at_nothing_claims_something_in_fewer_than_one_of_20() -> None:
    random = np.random.default_rng(3)
    wrong = 0
    for _ in range(400):
        walk = np.cumsum(random.normal(size=1_000))
        looks = np.arange(20, 1_001, 20)
        means = walk[looks - 1] / looks
        widths = [half_width(1 / math.sqrt(n), 1 / math.sqrt(1_000)) for n in looks]
        wrong += bool((np.abs(means) > widths).any())
    assert wrong <= 20


def test_regression_takes_out_who_was_attacked() -> None:
    """By hand: both arms lose half of what is attempted; the second was attacked for four times as much."""
    rows = np.full(4, 10.0)
    one = Clusters(np.array([50.0, 0.0, 100.0, 50.0]), np.array([100.0, 0.0, 200.0, 100.0]), rows)
    other = Clusters(np.array([200.0, 0.0, 400.0, 200.0]), np.array([400.0, 0.0, 800.0, 400.0]), rows)
    found = saved(one, other)
    assert found.value == pytest.approx(0.0, abs=1e-12) and found.error == pytest.approx(0.0, abs=1e-9)


@pytest.mark.parametrize(
    ("low", "high", "ended", "said"),
    [
        (0.1, 3.0, False, "better"), (-3.0, -0.1, False, "worse"), (-0.9, 0.8, False, "equal"),
        (-3.0, 2.0, False, "go on"), (-3.0, 2.0, True, "undecided"),
    ],
)  # fmt: skip
def test_verdicts_follow_the_interval(low: float, high: float, ended: bool, said: str) -> None:
    assert judge(Estimate((low + high) / 2, 1.0, low, high), 1.0, ended=ended) == said


def test_a_split_that_is_off_is_noticed() -> None:
    assert sample_ratio(5_000, 10_000, 0.5) == pytest.approx(1.0)
    assert sample_ratio(5_300, 10_000, 0.5) < 1e-8
    # The two-sided normal table: 1.96 standard deviations.
    assert sample_ratio(5_098, 10_000, 0.5) == pytest.approx(0.05, abs=0.0005)


@pytest.mark.parametrize(("kind", "right"), [("better", {"better"}), ("equal", {"equal", "undecided"})])
def test_simulated_experiments_end_in_the_right_verdict(kind: str, right: set[str]) -> None:
    found = [verdict(kind, seed) for seed in (1, 2)]
    assert {said for said, _ in found} <= right
    assert kind != "better" or all(day < DAYS for _, day in found)


@pytest.fixture(scope="module")
def rows() -> pd.DataFrame:
    return decisions("better", 5, customers=4_000)


def deployment() -> Deployment:
    return Deployment("one", "two", 0.5, "customer_id", "run-5", ("three",))


def test_the_report_has_both_arms_their_difference_and_where_it_is(
    rows: pd.DataFrame, tmp_path: object
) -> None:
    rows = rows.assign(
        shadow_scores=[[("three", score)] for score in rows["score"]], decided_at=rows["event_timestamp"]
    )
    since, as_of = (datetime(2026, 3, day, tzinfo=UTC) for day in (1, 29))
    report = experiment_report(rows, deployment(), since, as_of)
    assert report["verdict"] == "better" and report["planned_days"] == 28
    champion, challenger = report["champion"], report["challenger"]
    assert champion["rows"] + challenger["rows"] == len(rows)
    assert challenger["caught"] > champion["caught"]
    assert champion["calibration"] == pytest.approx(1.0, abs=0.25)
    assert report["intervals"]["caught"][0] > 0
    assert {each["slice"].split()[0] for each in report["slices"]} == {"channel", "amount"}
    (shadow,) = report["shadows"]
    assert shadow["difference"] == 0.0 and shadow["interval"] == [0.0, 0.0]
    page = html(report)
    assert "better" in page and "amount" in page
    assert write_report(report, tmp_path).is_file()  # type: ignore[arg-type]


def test_customers_in_the_wrong_arm_void_the_experiment(rows: pd.DataFrame) -> None:
    moved = rows.assign(variant=np.where(rows["customer_id"] < "c000200", "challenger", rows["variant"]))
    found = compare(moved, Experiment("run-5", 0.5), planned_rows=len(rows), replicates=0)
    assert found.verdict == "void" and "wrong arm" in found.reason


def test_a_shadow_that_ranks_better_shows_it_on_the_same_transactions(rows: pd.DataFrame) -> None:
    mine = rows[rows["variant"] == "champion"]
    better = np.where(mine["is_fraud"] > 0, 0.9, mine["score"] * 0.5)
    shadowed = mine.assign(shadow_scores=[[("three", score)] for score in better])
    (found,) = against_shadows(shadowed, ["three"], "one")
    assert found["rows"] == len(mine) and found["interval"][0] > 0


def test_without_a_challenger_or_its_decisions_the_reason_is_said(rows: pd.DataFrame) -> None:
    with pytest.raises(ExperimentError, match="no challenger"):
        experiment_report(rows, Deployment("one"), datetime.now(UTC), datetime.now(UTC))
    with pytest.raises(ExperimentError, match="no matured decision"):
        experiment_report(
            rows[rows["variant"] == "champion"].assign(shadow_scores=None), deployment(),
            datetime(2026, 3, 1, tzinfo=UTC), datetime(2026, 3, 29, tzinfo=UTC),
        )  # fmt: skip
    with pytest.raises(ExperimentError, match="no canary of two"):
        began([], "two")
    change = Change("2026-03-01T10:00:00+00:00", "canary", "two", False, [], Deployment(), deployment())
    assert began([change], "two") == datetime(2026, 3, 1, 10, tzinfo=UTC)
