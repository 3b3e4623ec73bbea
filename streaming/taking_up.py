"""A running stream takes up new declarations by itself: it ends at a snapshot and starts again.

What is declared decides which states there are, so a flow is built for one document. Whoever applies another
one need not stop anything: within seconds the stream finishes its batch, writes its snapshot and becomes a
new process of the same id, which continues from there.
"""

from __future__ import annotations

import logging
import os
import sys
import threading
from typing import Final

from stores.declared import DeclaredError, declared
from stores.settings import Settings

#: Seconds between two looks at the document.
_LOOK_S: Final = 2.0
_log = logging.getLogger(__name__)


class TakingUp:
    """Sets `stopping` once another document is in force than when this was made."""

    def __init__(self, configured: Settings, stopping: threading.Event) -> None:
        self._configured = configured
        self._stopping = stopping
        self._digest = declared(configured).digest
        #: Whether the flow was stopped to take something up.
        self.wanted = False

    def start(self) -> TakingUp:
        """Look from now on, in a thread."""
        threading.Thread(target=self._look, name="declarations", daemon=True).start()
        return self

    def _look(self) -> None:
        refused = ""
        while not self._stopping.wait(_LOOK_S):
            try:
                digest = declared(self._configured).digest
            except (DeclaredError, OSError) as error:
                if str(error) != refused:
                    refused = str(error)
                    _log.warning(
                        "the declarations cannot be read, the flow goes on with those it has: %s", error
                    )
                continue
            if digest != self._digest:
                _log.info("other features are declared: the flow takes a snapshot and starts again with them")
                self.wanted = True
                self._stopping.set()

    def start_again(self) -> None:
        """Become the same command anew, if that is why the flow ended; otherwise return."""
        if self.wanted:
            sys.stdout.flush()
            sys.stderr.flush()
            os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])
