"""Reports from a CSV, such as the chargebacks of a month: a row is what the API would be sent.

    python -m jobs.report_files chargebacks.csv

Columns are the API's fields; blank ones are absent. A date alone is taken as an issuer's: the event may
have been on that day or a day beside it, and what became known on it was known by its end.
"""

from __future__ import annotations

import argparse
import csv
import json
import re
import sys
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from bentos.log.labels import LabelStore, Reporter, parse_labels
from fraud.contract.transaction import ContractError
from stores.settings import settings

_DATE: Final = re.compile(r"\d{4}-\d{2}-\d{2}")
_TRUE, _FALSE = frozenset({"true", "1", "yes", "fraud"}), frozenset({"false", "0", "no", "genuine"})
#: Rows that are kept at once.
_TOGETHER: Final = 500


def take_rows(
    path: Path, parse: Callable[[bytes], list[Any]], keep: Callable[[Sequence[Any]], bool]
) -> tuple[int, list[str]]:
    """Keep the rows of `path`; how many were, and a line for each that was refused, with its number."""
    refused: list[str] = []
    taken, together = 0, []
    with path.open(newline="", encoding="utf-8-sig") as file:
        for number, row in enumerate(csv.DictReader(file), 2):
            try:
                together += parse(json.dumps(_fields(row)).encode())
            except ContractError as error:
                refused.append(f"line {number}: {error.field}: {error.reason}")
            if len(together) >= _TOGETHER:
                taken += _keep(together, keep)
                together = []
    return taken + _keep(together, keep), refused


def _keep(together: list[Any], keep: Callable[[Sequence[Any]], bool]) -> int:
    if together and not keep(together):
        raise OSError("the disk takes no more reports")
    return len(together)


def _fields(row: dict[str | Any, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in row.items():
        text = value.strip() if isinstance(value, str) else value
        if name is None or not text:
            if name is None:
                raise ContractError("(row)", "has more fields than the header")
            continue
        if name == "is_fraud":
            text = text.lower()
            if text not in _TRUE | _FALSE:
                raise ContractError(name, "should be true or false")
            found[name] = text in _TRUE
        elif name in ("event_time", "known_at") and _DATE.fullmatch(text):
            end = f"{text}T23:59:59.999Z"
            now = datetime.now(UTC)
            today = name == "known_at" and text == f"{now:%Y-%m-%d}"
            found[name] = f"{text}T00:00:00Z" if name == "event_time" else now.isoformat() if today else end
        else:
            found[name] = text
    return found


def main(arguments: list[str] | None = None) -> int:
    """Take a CSV of labels: transaction_id and event_time; is_fraud (true), source (chargeback), reason and
    known_at where there are such columns."""
    parser = argparse.ArgumentParser(prog="python -m jobs.report_files", description=main.__doc__)
    parser.add_argument("file", type=Path)
    chosen = parser.parse_args(arguments)
    store = LabelStore(settings().home)

    def parse(raw: bytes) -> list[Any]:
        row = {"is_fraud": True, "source": "chargeback"} | json.loads(raw)
        return list(parse_labels(json.dumps(row).encode(), datetime.now(UTC), Reporter("import", admin=True)))

    taken, refused = take_rows(chosen.file, parse, store.append)
    store.close()
    for line in refused:
        print(line, file=sys.stderr)
    print(
        f"{taken} labels taken, {len(refused)} rows refused; `python -m bentos.tools.labels` lists what waits"
    )
    return 1 if refused else 0


if __name__ == "__main__":
    raise SystemExit(main())
