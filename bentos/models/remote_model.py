"""A model on a server of the Open Inference Protocol, in place of the one in this process.

The protocol's REST form (https://github.com/open-inference/open-inference-protocol) as MLServer,
KServe and others speak it. A missing value is null, as JSON knows no NaN. The server gives raw
scores of the exact version that is asked for; calibration and thresholds are the service's own.
"""

from __future__ import annotations

import logging
from typing import Any

import aiohttp
import msgspec
import numpy as np
import orjson

from bentos.wire.breaker import CircuitBreaker
from stores.models import Floats
from stores.served_models import INPUT, served_name

_log = logging.getLogger("tollgate.remote_model")
#: Bytes of an answer: 1,024 scores of both classes, and names, ten times over.
_LARGEST_ANSWER = 1_000_000


class RemoteModelError(RuntimeError):
    """The server could not be asked, or what it answered is no score of these rows."""


class _Output(msgspec.Struct):
    name: str
    shape: list[int]
    data: list[float]


class _Answer(msgspec.Struct):
    outputs: list[_Output]


_decode = msgspec.json.Decoder(_Answer).decode


class RemoteModel:
    """Asks one server for raw scores. One event loop owns it; `close` at its end."""

    def __init__(self, url: str, timeout_ms: int) -> None:
        self._url = url.rstrip("/")
        self._timeout = aiohttp.ClientTimeout(total=timeout_ms / 1000)
        self._session: aiohttp.ClientSession | None = None
        self.breaker = CircuitBreaker()

    async def scores(self, version: str, rows: Floats) -> Floats | None:
        """`raw` behind a circuit breaker: None when the server is of no use now."""
        if not self.breaker.allows():
            return None
        try:
            scores = await self.raw(version, rows)
        except RemoteModelError as error:
            self.breaker.failed()
            _log.error("the model server failed", extra={"reason": str(error)})
            return None
        self.breaker.succeeded()
        return scores

    async def raw(self, version: str, rows: Floats) -> Floats:
        """Uncalibrated probabilities of `rows` (n x features, NaN = missing) by `version`.

        Raises RemoteModelError.
        """
        values = [None if value != value else value for value in rows.ravel().tolist()]
        tensor = {"name": INPUT, "datatype": "FP64", "shape": list(rows.shape), "data": values}
        address = f"{self._url}/v2/models/{served_name(version)}/infer"
        try:
            answer = _decode(await self._post(address, orjson.dumps({"inputs": [tensor]})))
            return _scores(answer, len(rows))
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError, RecursionError) as error:
            # Its text may repeat what the server said, and the server may repeat the rows.
            raise RemoteModelError(f"{served_name(version)}: {type(error).__name__}") from None

    async def _post(self, address: str, body: bytes) -> bytes:
        if self._session is None:
            self._session = aiohttp.ClientSession(
                timeout=self._timeout,
                headers={"Content-Type": "application/json", "Accept-Encoding": "identity"},
                auto_decompress=False,  # a few bytes could become gigabytes
            )
        async with self._session.post(address, data=body, allow_redirects=False) as response:
            if response.status != 200:
                raise RemoteModelError(f"the server answered {response.status}")
            text = b""
            while part := await response.content.readany():
                text += part
                if len(text) > _LARGEST_ANSWER:
                    raise RemoteModelError(f"the server answered more than {_LARGEST_ANSWER} bytes")
            return text

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()


def _scores(answer: Any, rows: int) -> Floats:
    """One score per row: the first output, or its second column if it has one per class."""
    if not answer.outputs:
        raise RemoteModelError("the server answered without an output")
    output = answer.outputs[0]
    values = np.array(output.data, dtype=np.float64)
    if values.size == 2 * rows and output.shape[-1:] == [2]:
        values = values[1::2]
    if values.size != rows or not ((values >= 0) & (values <= 1)).all():
        raise RemoteModelError(f"{rows} rows went in, and {values.size} outputs that are no scores came out")
    return values
