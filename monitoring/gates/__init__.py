"""Gates: bad data is stopped by name before it reaches the next step.

    python -m monitoring.gates raw|labels|profiles|velocity|training|decisions PATH [--engine spark]

A gate is a suite of Great Expectations checks, read as a table in `suites`. Blockers stop the step
(exit code 1); warnings are printed. Every failure says what failed, in how many rows, a few examples
without personal data, and what to do.
"""
