"""A seeded world of cardholders, merchants and thieves, written as a dataset folder.

`python -m datasets.synthetic --help` says how to run it; `generate` is the same as a function.
"""

from datasets.synthetic.drift import KINDS, Drift
from datasets.synthetic.generate import Plan, generate, write

__all__ = ["KINDS", "Drift", "Plan", "generate", "write"]
