"""Structured logs: one JSON object a line, with places but without values."""

from __future__ import annotations

import json
import logging
import sys

from bentos.base.logs import JsonFormatter

NUMBER = "4" + "1" * 15


def formatted(
    level: int = logging.ERROR, message: str = "m", *values: object, **extra: object
) -> dict[str, object]:
    record = logging.LogRecord("tollgate.test", level, __file__, 1, message, values, sys.exc_info())
    vars(record).update(extra)
    line = JsonFormatter().format(record)
    assert "\n" not in line
    found: dict[str, object] = json.loads(line)
    return found


def test_a_line_is_json_with_time_level_and_what_the_caller_adds() -> None:
    entry = formatted(logging.INFO, "rules in force: %d", 3, version="abc")
    assert entry["message"] == "rules in force: 3"
    assert (entry["level"], entry["logger"], entry["version"]) == ("INFO", "tollgate.test", "abc")
    assert str(entry["time"]).endswith("Z")


def test_a_card_number_is_redacted_wherever_it_stands() -> None:
    text = json.dumps(
        formatted(
            logging.INFO, "%s", NUMBER, note=f"x {NUMBER[:4]} {NUMBER[4:8]} {NUMBER[8:12]} {NUMBER[12:]}"
        )
    )
    assert NUMBER not in text.replace(" ", "")
    assert text.count("[card number]") == 2


def test_an_exception_leaves_its_place_and_not_its_values() -> None:
    try:
        raise ValueError(f"a customer sent {NUMBER} and more")
    except ValueError:
        entry = formatted(message="a request failed")
    assert entry["exception"] == "ValueError"
    assert "customer sent" not in json.dumps(entry)
    assert str(entry["stack"]).startswith("['test_logs.py:")


def test_credentials_are_left_out_of_addresses_and_beside_their_names() -> None:
    line = formatted(
        logging.INFO,
        "cannot reach %s",
        "rediss://default:hunter2@cache:6379/0?ssl_ca_certs=/x",
        complaints='postgresql://feast:hunter2@db/registry password=hunter2 {"token": "hunter2"} "api_key"=\'hunter2\'',
    )
    assert "hunter2" not in json.dumps(line)
    assert line["message"] == "cannot reach rediss://***@cache:6379/0?ssl_ca_certs=/x"
