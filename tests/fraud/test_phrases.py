"""Reasons in words: every feature of the row declares one, and each reads as a person would say it."""

from __future__ import annotations

import math

import pytest

from fraud.features.feature_list import PHRASES, VECTOR
from fraud.features.phrases import REASON_CODES, RULE_CODE, duration, other_words, share
from fraud.features.profiles import USUAL_PLACE
from stores.settings import REPOSITORY


def test_every_feature_that_a_model_may_split_on_declares_a_phrase_and_a_known_code() -> None:
    assert set(VECTOR) - set(PHRASES) == set(USUAL_PLACE)
    assert {phrase.code for phrase in PHRASES.values()} | {RULE_CODE, "X1"} == set(REASON_CODES)


@pytest.mark.parametrize("value", [0.0, 0.004, 0.5, 1.0, 2.7, 1e6])
def test_a_phrase_is_plain_words_without_names_of_columns(value: float) -> None:
    for name, phrase in PHRASES.items():
        said = phrase.of(value, {})
        assert said is None or ("_" not in said and "{" not in said and "nan" not in said), name
        assert phrase.of(math.nan, {}) is None


@pytest.mark.parametrize(
    ("name", "value", "known", "said"),
    [
        ("customer_new_country", 1.0, {}, "first purchase in this country"),
        ("card_new_device", 1.0, {}, "first purchase from this device with this card"),
        ("device_new_customer_24h", 1.0, {}, "first purchase of this customer from this device in 24 hours"),
        ("customer_txn_count_5m", 12.0, {"customer_txn_count_30d": 30.0}, "12 purchases in 5 minutes, usually 1 a day"),
        ("card_txn_count_1h", 1.0, {"card_txn_count_30d": 9.0}, "1 purchase with this card in 1 hour, usually 2 a week"),
        ("card_txn_count_1h", 3.0, {"card_txn_count_30d": math.nan}, "3 purchases with this card in 1 hour"),
        ("customer_amount_zscore_30d", 5.2, {}, "amount far above what is usual"),
        ("card_amount_ratio_30d", 7.0, {}, "amount 7 times the usual with this card"),
        ("merchant_fraud_rate_30d", 0.031, {}, "3.1% of purchases at this merchant in 30 days were fraud"),
        ("customer_seconds_since_last_txn", 95.0, {}, "last purchase 95 seconds before"),
        ("customer_km_from_last", 5571.4, {}, "5,571.4 km from the last purchase"),
        ("txn_channel", 1.0, {}, "online payment"),
        ("txn_hour", 3.25, {}, "at 03:15 UTC"),
        ("card_days_genuine_minus_fraud", -4.0, {}, None),
        ("terminal_fraud_count_7d", 0.0, {}, None),
    ],
)  # fmt: skip
def test_phrases_read_as_an_analyst_would_say_them(
    name: str, value: float, known: dict[str, float], said: str | None
) -> None:
    assert PHRASES[name].of(value, known) == said


def test_the_catalogue_of_codes_is_documented_as_it_is() -> None:
    page = (REPOSITORY / "docs" / "service.md").read_text()
    for code, meaning in REASON_CODES.items():
        assert f"| `{code}` | {meaning} |" in page


def test_numbers_are_written_in_fitting_units() -> None:
    assert [duration(seconds) for seconds in (1.0, 59.0, 120.0, 7_300.0, 200_000.0)] == [
        "1 second", "59 seconds", "2 minutes", "2 hours", "2 days",
    ]  # fmt: skip
    assert [share(value) for value in (0.0004, 0.5)] == ["0.04%", "50.0%"]
    assert other_words("score of the bureau", 612.0) == "score of the bureau: 612"
    assert other_words("score of the bureau", math.nan) is None
