"""List the labels whose transaction is not known: `python -m bentos.tools.labels`."""

from __future__ import annotations

import argparse
import time

from bentos.log.label_files import ASIDE, read_waiting
from bentos.log.labels import labels_folder, read_summary
from stores.settings import settings


def main(arguments: list[str] | None = None) -> int:
    """One line a label that waits, oldest first, and how many went aside."""
    parser = argparse.ArgumentParser(prog="python -m bentos.tools.labels", description=__doc__)
    parser.parse_args(arguments)
    home = settings().home
    for waiting in sorted(read_waiting(home), key=lambda waiting: waiting.since):
        label, days = waiting.label, (time.time() - waiting.since) / 86_400
        print(
            f"{label.transaction_id}  event {label.event_time:%Y-%m-%d %H:%M:%S}  "
            f"{'fraud' if label.is_fraud else 'genuine'} by {label.source} of {label.client}, {days:.1f} days"
        )
    summary = read_summary(labels_folder(home))
    aside = labels_folder(home) / ASIDE
    print(f"{summary.waiting} wait for their transaction; {summary.aside} went aside, in {aside}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
