"""The dicts that users write and read, with their types.

Arrays in results are read-only numpy views on the answer's bytes; call `.copy()` on one to change it.
"""

from typing import TypedDict

from sie_protocol.items import (
    Classification,
    DetectedObject,
    EncodeResult,
    Entity,
    ExtractResult,
    Image,
    Item,
    ItemError,
    ModelInfo,
    Quantization,
    Relation,
    ScoreEntry,
    ScoreResult,
    SparseVector,
    Timing,
    Usage,
)
from sie_sdk.messages import WaitEvent


class WorkerInfo(TypedDict, total=False):
    """One worker as the router sees it; `gpu` is its machine profile, memory is in bytes."""

    name: str
    url: str
    gpu: str
    gpu_count: int
    loaded_models: list[str]
    queue_depth: int
    memory_used_bytes: int
    memory_total_bytes: int
    healthy: bool
    bundle: str


class CapacityInfo(TypedDict):
    """What a cluster can do now.

    `worker_count` and `gpu_count` count healthy workers, `workers` lists all of them; asked for one machine profile,
    all three hold the healthy workers of that profile.
    """

    status: str
    worker_count: int
    gpu_count: int
    models_loaded: int
    configured_gpu_types: list[str]
    live_gpu_types: list[str]
    workers: list[WorkerInfo]


__all__ = [
    "Item",
    "Image",
    "EncodeResult",
    "ExtractResult",
    "Entity",
    "Relation",
    "Classification",
    "DetectedObject",
    "ItemError",
    "ScoreResult",
    "ScoreEntry",
    "Usage",
    "SparseVector",
    "Quantization",
    "Timing",
    "ModelInfo",
    "CapacityInfo",
    "WorkerInfo",
    "WaitEvent",
]
