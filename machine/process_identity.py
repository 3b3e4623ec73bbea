"""Which process a number means: numbers are used again, a start is not."""

from __future__ import annotations

import os
from pathlib import Path


def process_identity(number: int) -> str | None:
    """The number with the clock tick at which its process started; None if no process has it.

    Where the kernel does not tell (no /proc), the number alone.
    """
    try:
        # Field 22 of proc(5), behind the command's name, which may hold spaces and parentheses.
        return f"{number}-{Path(f'/proc/{number}/stat').read_text().rpartition(')')[2].split()[19]}"
    except FileNotFoundError:
        if Path("/proc/self/stat").exists():
            return None
    except ProcessLookupError:  # it ended while its entry was read
        return None
    try:
        os.kill(number, 0)
    except ProcessLookupError:
        return None
    except PermissionError:
        pass
    return str(number)


def alive(identity: str) -> bool:
    """Whether the process of `process_identity` still runs."""
    return process_identity(int(identity.partition("-")[0])) == identity
