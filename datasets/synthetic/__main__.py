"""The generator's command: `python -m datasets.synthetic --out DIR`."""

from __future__ import annotations

import argparse
import sys
import time
from datetime import date
from pathlib import Path

from datasets.folder import DatasetError
from datasets.synthetic.drift import KINDS, MEANING, Drift
from datasets.synthetic.generate import Plan, write


def main(arguments: list[str] | None = None) -> int:
    """Run the command; return its exit code."""
    plan = Plan()
    parser = argparse.ArgumentParser(
        prog="python -m datasets.synthetic",
        description="Write a synthetic dataset of card transactions, labels and ground truth.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="kinds of drift:\n" + "\n".join(f"  {kind}: {MEANING[kind]}" for kind in KINDS),
    )
    parser.add_argument("--out", type=Path, required=True, help="the dataset folder to write or replace")
    parser.add_argument("--customers", type=int, default=plan.customers, help=f"default {plan.customers}")
    parser.add_argument("--days", type=int, default=plan.days, help=f"default {plan.days}")
    parser.add_argument(
        "--start", type=date.fromisoformat, default=plan.start, help=f"first day, UTC; {plan.start}"
    )
    parser.add_argument("--seed", type=int, default=plan.seed, help="same seed, same bytes")
    parser.add_argument(
        "--fraud-share", type=float, default=plan.fraud_share, help=f"default {plan.fraud_share}"
    )
    parser.add_argument(
        "--drift", nargs="+", action="extend", default=[], metavar="KIND@DATE", help="switch a drift on"
    )
    options = parser.parse_args(arguments)
    began = time.monotonic()
    try:
        plan = Plan(
            customers=options.customers,
            days=options.days,
            start=options.start,
            seed=options.seed,
            fraud_share=options.fraud_share,
            drifts=tuple(Drift.parse(text) for text in options.drift),
        )
        info = write(plan, options.out, lambda text: print(f"  {text}", file=sys.stderr))
    except (ValueError, DatasetError) as error:
        parser.error(str(error))
    seconds = time.monotonic() - began
    print(
        f"{info.name}: {info.rows:,} transactions, {info.frauds:,} frauds ({info.frauds / info.rows:.2%}), "
        f"{info.start} to {info.end}, in {seconds:.1f} s: {options.out}"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
