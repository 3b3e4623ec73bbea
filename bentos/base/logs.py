"""Structured logs: one JSON object a line on stderr, never with a caller's input in it."""

from __future__ import annotations

import json
import logging
import re
import time
from typing import Any, Final

from fraud.contract.cards import redact

_PLAIN: Final = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}
#: A password in an address, and one that stands beside its name.
_CREDENTIALS: Final = re.compile(r"(\w://)[^/\s@\"']*@")
_NAMED: Final = re.compile(
    r"""(\w*(?:password|passwd|secret|token|api_?key)["']?\s?[=:]\s?["']?)[^\s&,;"']+""", re.IGNORECASE
)


def without_secrets(text: str) -> str:
    """`text` without the credentials of addresses and without what is named a password, secret or token."""
    return _NAMED.sub(r"\1***", _CREDENTIALS.sub(r"\1***@", text))


class JsonFormatter(logging.Formatter):
    """Time (UTC), level, logger, message, and what `extra` gave; card numbers and credentials redacted."""

    def format(self, record: logging.LogRecord) -> str:
        entry: dict[str, Any] = {
            "time": time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
            + f".{int(record.msecs):03d}Z",
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
        }
        entry |= {key: value for key, value in vars(record).items() if key not in _PLAIN}
        if record.exc_info and record.exc_info[0] is not None:
            entry["exception"] = record.exc_info[0].__name__
            frames = []
            trace = record.exc_info[2]
            while trace is not None:
                code = trace.tb_frame.f_code
                frames.append(f"{code.co_filename.rsplit('/', 1)[-1]}:{trace.tb_lineno} {code.co_name}")
                trace = trace.tb_next
            entry["stack"] = frames  # places only: messages and values may hold the input
        said = {
            key: without_secrets(value) if isinstance(value, str) else value for key, value in entry.items()
        }
        return redact(json.dumps(said, default=str))


def configure_logs(level: str) -> None:
    """Send every log of this process through `JsonFormatter`; turn access logs off."""
    handler = logging.StreamHandler()
    handler.setFormatter(JsonFormatter())
    for name in ("tollgate", "bentoml", "uvicorn", "uvicorn.error", ""):
        logger = logging.getLogger(name)
        logger.handlers = [handler]
        logger.propagate = False
        logger.setLevel(level if name in ("tollgate", "") else "WARNING")
    access = logging.getLogger("uvicorn.access")
    access.handlers = []
    access.propagate = False
