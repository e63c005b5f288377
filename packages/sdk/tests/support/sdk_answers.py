"""Answers as published servers give them, built from the wire's own layout and not by the code under test."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import numpy as np

from sdk_server import Reply

MSGPACK = {"Content-Type": "application/msgpack", "X-SIE-Server-Version": "0.1.10"}
JSON = {"Content-Type": "application/json"}


def array_map(array: np.ndarray[Any, Any]) -> dict[bytes, Any]:
    return {
        b"nd": True,
        b"type": array.dtype.str,
        b"kind": b"",
        b"shape": list(array.shape),
        b"data": array.tobytes(),
    }


def dense_item(*values: float, **fields: Any) -> dict[str, Any]:
    array = np.array(values, np.float32)
    return {"dense": {"dims": len(values), "dtype": "float32", "values": array_map(array)}, **fields}


def encoded(items: Sequence[Mapping[str, Any]], **fields: Any) -> Reply:
    body = msgspec.msgpack.encode({"model": "org/m", "items": items, **fields})
    return Reply(200, body, MSGPACK)


def scored(*entries: tuple[str, float], **fields: Any) -> Reply:
    scores = [{"item_id": name, "score": score, "rank": rank} for rank, (name, score) in enumerate(entries)]
    return Reply(200, msgspec.msgpack.encode({"model": "org/m", "scores": scores, **fields}), MSGPACK)


def extracted(*items: Any, **fields: Any) -> Reply:
    return Reply(200, msgspec.msgpack.encode({"model": "org/m", "items": items, **fields}), MSGPACK)


def said(status: int, body: Any, **headers: str) -> Reply:
    """A JSON answer; header names are given with underscores."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Reply(status, json.dumps(body).encode(), {**JSON, **named})


VECTOR = encoded([dense_item(0.6, 0.8)])

# The 0.1.10 generation: 202, FastAPI's `detail`, bare objects from the router's fast path.
PROVISIONING_202 = said(
    202,
    {"status": "provisioning", "gpu": "l4", "estimated_wait_s": 180, "message": "Starting l4"},
    Retry_After="120",
)
MODEL_LOADING_0_1 = said(503, {"detail": {"code": "MODEL_LOADING", "message": "Model 'm' is loading"}}, Retry_After="5")
DRAINING_0_1 = said(
    503, {"error": "Service shutting down", "detail": "Server is draining connections"}, Retry_After="5"
)
NO_WORKERS_0_1 = said(503, {"message": "No healthy workers available"})
UNKNOWN_PROFILE_0_1 = said(
    503,
    {"status": "gpu_not_configured", "gpu": "h9", "configured_gpu_types": ["l4"], "message": "GPU 'h9' unknown"},
)
UNKNOWN_MODEL_0_1 = said(404, {"error": "model_not_found", "model": "m", "message": "Model 'm' not found"})
UNKNOWN_ROUTE_0_1 = said(404, {"detail": "Not Found"})
UNPROCESSABLE_0_1 = said(422, {"detail": [{"loc": ["body"], "msg": "Field required", "type": "missing"}]})
NO_TOKEN_0_1 = said(401, {"message": "Missing Authorization header"})
BAD_ITEM_0_1 = said(400, {"detail": {"code": "INVALID_INPUT", "message": "items is empty"}})

# The 0.10.1 generation: one envelope, code in a header as well.
PROVISIONING_503 = said(
    503,
    {"error": {"code": "PROVISIONING", "message": "Starting l4"}, "status": "provisioning", "gpu": "l4"},
    Retry_After="7",
    X_SIE_Error_Code="PROVISIONING",
)
LOAD_FAILED_0_10 = said(
    502,
    {
        "error": {
            "code": "MODEL_LOAD_FAILED",
            "message": "No such revision",
            "error_class": "NOT_FOUND",
            "permanent": True,
            "attempts": 3,
        }
    },
    X_SIE_Error_Code="MODEL_LOAD_FAILED",
)
TOO_LONG_0_10 = said(400, {"error": {"code": "INPUT_TOO_LONG", "message": "9000 tokens, limit 8192"}})
QUEUE_FULL_0_10 = said(503, {"error": {"code": "QUEUE_FULL", "message": "Queue is full"}}, Retry_After="1")
OUT_OF_MEMORY_0_10 = said(503, {"error": {"code": "RESOURCE_EXHAUSTED", "message": "CUDA out of memory"}})


def health(*workers: Mapping[str, Any], configured: Sequence[str] = (), kind: str = "router") -> Reply:
    """`GET /health` of a router."""
    healthy = [worker for worker in workers if worker.get("healthy")]
    body = {
        "status": "healthy" if healthy else "degraded",
        "type": kind,
        "cluster": {
            "worker_count": len(healthy),
            "gpu_count": sum(worker["gpu_count"] for worker in healthy),
            "models_loaded": 0,
            "total_qps": 0.0,
        },
        "configured_gpu_types": list(configured),
        "live_gpu_types": sorted({worker["gpu"] for worker in healthy}),
        "workers": list(workers),
        "models": [],
    }
    return said(200, body)


def worker(gpu: str, *, healthy: bool = True) -> dict[str, Any]:
    return {
        "name": f"worker-{gpu}",
        "url": "http://10.0.0.1:8080",
        "gpu": gpu,
        "gpu_count": 1,
        "loaded_models": [],
        "queue_depth": 0,
        "memory_used_bytes": 0,
        "memory_total_bytes": 0,
        "healthy": healthy,
        "bundle": "default",
        "bundle_config_hash": "",
    }
