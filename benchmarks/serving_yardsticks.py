"""The services that the scoring service is measured against, each one worker.

    python -m benchmarks.serving_yardsticks floor|fastapi_onnx|feast_sdk PORT

* floor: the same engine (features, batching, model, rules, log, events) on a raw ASGI app;
* fastapi_onnx: the service most teams would write: FastAPI, pydantic, redis-py, Feast's protobuf
  values, ONNX Runtime. It has no idempotency, log, rules or events to pay for;
* feast_sdk: that service, reading by Feast's `get_online_features`.
"""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable
from time import perf_counter
from typing import Any

import msgspec
import numpy as np
import uvicorn

from benchmarks.serving_data import CALLER
from bentos.api.api_models import ScoreAnswer, ScoreRequest
from fraud.contract.answer import Decision
from fraud.contract.transaction import Transaction
from stores.settings import settings


def floor() -> Any:
    """A raw ASGI app over the service's own engine."""
    from bentos.base.problem import Problem
    from bentos.service import open_engine

    engine = open_engine(settings())
    headers = [(b"content-type", b"application/json")]
    split = msgspec.json.Decoder(list[msgspec.Raw]).decode

    async def body_of(receive: Callable[[], Awaitable[Any]]) -> bytes:
        message = await receive()
        body: bytes = message["body"]
        while message.get("more_body"):
            message = await receive()
            body += message["body"]
        return body

    async def app(
        scope: Any, receive: Callable[[], Awaitable[Any]], send: Callable[[Any], Awaitable[None]]
    ) -> None:
        if scope["type"] == "lifespan":
            await receive()
            await engine.start()
            await send({"type": "lifespan.startup.complete"})
            await receive()
            await engine.stop()
            await send({"type": "lifespan.shutdown.complete"})
            return
        if scope["method"] == "GET":
            status, answer = 200, b"{}"
        else:
            body = await body_of(receive)
            try:
                if scope["path"] == "/v1/score":
                    answer = await engine.score(body, perf_counter(), CALLER)
                else:
                    items = [(bytes(raw), CALLER) for raw in split(body)]
                    answer = b"[" + b",".join(await engine.score_many(items)) + b"]"
                status = 200
            except Problem as problem:
                status, answer = problem.status, problem.json()
        length = (b"content-length", b"%d" % len(answer))
        await send({"type": "http.response.start", "status": status, "headers": [*headers, length]})
        await send({"type": "http.response.body", "body": answer})

    return app


def onnx_session() -> tuple[Any, dict[str, Any]]:
    """The newest model of the store, converted to ONNX, on one thread; and its manifest."""
    import json

    import lightgbm
    import onnxmltools
    import onnxruntime
    from onnxmltools.convert.common.data_types import FloatTensorType

    from stores.models import model_folder, newest_version

    home = settings().home
    version = newest_version(home)
    assert version is not None, "the store holds no model"
    folder = model_folder(home, version)
    manifest = json.loads((folder / "manifest.json").read_text())
    booster = lightgbm.Booster(model_file=str(folder / "model.txt"))
    inputs = [("row", FloatTensorType([None, len(manifest["features"])]))]
    converted = onnxmltools.convert_lightgbm(booster, initial_types=inputs, zipmap=False, target_opset=15)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    return onnxruntime.InferenceSession(converted.SerializeToString(), options), manifest


def fastapi_service(*, sdk: bool) -> Any:
    """FastAPI around redis-py or Feast's SDK, and ONNX Runtime."""
    import redis.asyncio
    from fastapi import FastAPI
    from feast.protos.feast.types.Value_pb2 import Value

    from fraud.features.entities import ENTITIES, FEATURE_SERVICE
    from fraud.features.feature_list import PROFILE_INPUTS, VECTOR
    from fraud.features.on_demand import transaction_matrix
    from fraud.features.profiles import SERVED_PROFILES
    from fraud.features.request import request_row
    from stores.redis_layout import entity_key, field

    session, manifest = onnx_session()
    app = FastAPI()
    client = redis.asyncio.from_url(settings().redis.url)
    project = settings().feast.project
    profile_fields = {
        e.name: [field(e.profile_view, name) for name in SERVED_PROFILES[e.name]] for e in ENTITIES
    }
    profile_names = [name for entity in ENTITIES for name in SERVED_PROFILES[entity.name]]

    async def by_redis(transaction: Transaction) -> np.ndarray[Any, np.dtype[np.float64]]:
        pipe = client.pipeline(transaction=False)
        for entity in ENTITIES:
            wanted = [*profile_fields[entity.name], field(entity.velocity_view, entity.state_feature)]
            pipe.hmget(
                entity_key(project, entity.key, getattr(transaction, entity.key)),  # type: ignore[arg-type]
                wanted,
            )
        profile: dict[str, float] = {}
        states: list[list[bytes | None]] = []
        for entity, values in zip(ENTITIES, await pipe.execute(), strict=True):
            decoded = []
            for value in values:
                message = Value()
                message.ParseFromString(value or b"")
                decoded.append(message)
            for name, message in zip(SERVED_PROFILES[entity.name], decoded, strict=False):
                profile[name] = message.double_val if message.HasField("double_val") else float("nan")
            states.append([decoded[-1].bytes_val or None])
        request = {name: np.array([value]) for name, value in request_row(transaction).items()}
        inputs = {name: np.array([profile[name]]) for name in PROFILE_INPUTS}
        own = transaction_matrix(states, request, inputs)
        return np.concatenate((np.array([[profile[name] for name in profile_names]]), own), axis=1)

    if sdk:
        from feature_repo.store import open_store

        store = open_store()
        feature_service = store.get_feature_service(FEATURE_SERVICE)

    def by_sdk(transaction: Transaction) -> np.ndarray[Any, np.dtype[np.float64]]:
        row = {entity.key: getattr(transaction, entity.key) for entity in ENTITIES} | request_row(transaction)
        found = store.get_online_features(features=feature_service, entity_rows=[row]).to_dict()
        return np.array([[np.nan if found[name][0] is None else found[name][0] for name in VECTOR]])

    def decide(transaction: Transaction, rows: np.ndarray[Any, Any], begun: float) -> ScoreAnswer:
        score = float(session.run(None, {"row": rows.astype(np.float32)})[1][0][1])
        limits = manifest["thresholds"]
        decision: Decision = (
            "BLOCK" if score >= limits["block"] else "REVIEW" if score >= limits["review"] else "APPROVE"
        )
        return ScoreAnswer(
            transaction_id=transaction.transaction_id, fraud_score=score, decision=decision, risk_factors=[],
            rules=[], model_version=manifest["version"], variant="champion", feature_status={}, degraded=[],
            latency_ms=(perf_counter() - begun) * 1000, reason_codes=[],
        )  # fmt: skip

    def contract(request: ScoreRequest) -> Transaction:
        # Checked by pydantic already; only the type is ours.
        return Transaction(**request.model_dump())

    @app.get("/readyz")
    def ready() -> dict[str, str]:
        return {}

    if sdk:

        @app.post("/v1/score")
        def score_by_sdk(request: ScoreRequest) -> ScoreAnswer:
            begun = perf_counter()
            transaction = contract(request)
            return decide(transaction, by_sdk(transaction), begun)

    else:

        @app.post("/v1/score")
        async def score_by_redis(request: ScoreRequest) -> ScoreAnswer:
            begun = perf_counter()
            transaction = contract(request)
            return decide(transaction, await by_redis(transaction), begun)

    return app


def main() -> None:
    kind, port = sys.argv[1], int(sys.argv[2])
    app = floor() if kind == "floor" else fastapi_service(sdk=kind == "feast_sdk")
    uvicorn.run(app, host="127.0.0.1", port=port, log_config=None, access_log=False, server_header=False)


if __name__ == "__main__":
    main()
