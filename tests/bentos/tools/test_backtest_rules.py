"""What a rule file would have done to the decisions in the log."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import redis

from bentos.log.decision_files import convert_all
from bentos.log.label_files import convert_labels
from bentos.log.labels import KeptLabel, LabelStore
from bentos.tools import backtest_rules
from embedded.redis_server import RedisServer
from stores.settings import settings
from tests.bentos.one_worker import worker
from tests.bentos.running import save_model

LIVE = 'rules:\n  - {name: atm, when: channel == "atm", action: review, reason: ATM}\n'
CANDIDATE = """rules:
  - {name: large, when: amount > 10000.0, action: block, reason: LARGE}
  - {name: never, when: amount < 0.0, action: review, reason: NEVER}
"""


@pytest.fixture
def decided(home: Path, redis_server: RedisServer, tmp_path: Path) -> Path:
    """Eight decisions: four of 200.00 USD, of which one is fraud; two of the others at a machine."""
    save_model(home, "one", trees=3, review=0.999, block=0.9999)
    live = tmp_path / "live.yaml"
    live.write_text(LIVE)
    url = f"redis://127.0.0.1:{redis_server.port}/9"
    redis.Redis.from_url(url).flushdb()

    async def run() -> None:
        async with worker(home, url, rules_file=live) as (_, post):
            for n in range(8):
                answer = await post(
                    transaction_id=f"b{n}", customer_id=f"customer-{n // 2}", currency="USD",
                    amount="200.00" if n < 4 else "20.00", channel="atm" if n >= 6 else "pos",
                )  # fmt: skip
                assert answer.status_code == 200

    asyncio.run(run())
    assert convert_all(home) == 8
    labels = LabelStore(home)
    event = datetime(2026, 3, 1, 12, tzinfo=UTC)
    labels.append([KeptLabel("b0", event, True, "chargeback", event + timedelta(days=3), "issuer")])
    labels.close()
    assert convert_labels(home) == 1
    return live


def test_a_backtest_tells_hits_precision_value_and_who_was_declined(
    decided: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    candidate = tmp_path / "candidate.yaml"
    candidate.write_text(CANDIDATE)
    monkeypatch.setenv("TOLLGATE_RULES_FILE", str(decided))
    settings.cache_clear()
    assert backtest_rules.main(["--rules", str(candidate)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "8 decisions, 1 known to be fraud"
    # 4 hits, 1 of them fraud, 200.00 caught; the other three belong to two customers
    assert lines[2].split() == ["large", "block", "4", "0.250", "200.00", "2"]
    assert lines[3].split() == ["never", "review", "0", "-", "0.00", "0"]
    assert lines[4].split(maxsplit=1) == ["decisions", "APPROVE 4, BLOCK 4"]
    assert lines[5].split(maxsplit=2)[2] == "APPROVE 6, REVIEW 2"
    assert lines[6].split(maxsplit=1) == ["difference", "APPROVE -> BLOCK 4, REVIEW -> APPROVE 2"]


def test_a_rule_file_that_does_not_load_is_named_line_by_line(
    decided: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    broken = tmp_path / "broken.yaml"
    broken.write_text(CANDIDATE + "  - {name: odd, when: shoe_size > 4.0, action: block, reason: SHOE}\n")
    assert backtest_rules.main(["--rules", str(broken)]) == 1
    assert "line 4: rule odd: shoe_size" in capsys.readouterr().err


def test_without_decisions_the_next_step_is_named(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert backtest_rules.main([]) == 1
    assert "score something first" in capsys.readouterr().err
