"""The dicts that users write and read, with their types.

Arrays in results are read-only numpy views on the answer's bytes; call `.copy()` on one to change it.
"""

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, BinaryIO, TypedDict

from sie_protocol.items import (
    Classification,
    DetectedObject,
    EncodeResult,
    Entity,
    ExtractResult,
    Image,
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
from sie_protocol.pools import AssignedWorker, PoolInfo, PoolListItem
from sie_sdk.messages import WaitEvent

if TYPE_CHECKING:
    import numpy as np
    from PIL.Image import Image as PillowImage

    ImageInput = (
        str | os.PathLike[str] | bytes | bytearray | memoryview | BinaryIO | Image | PillowImage | np.ndarray[Any, Any]
    )


class Item(TypedDict, total=False):
    """One thing to embed, score or extract from.

    `images` are paths, encoded bytes, open files, Pillow images or arrays, see `sie_sdk.media`. `id` comes back with
    the result. Give `text` or `images`, as the model reads.
    """

    id: str | None
    text: str | None
    images: "Sequence[ImageInput] | None"
    metadata: dict[str, Any] | None


class PoolRequest(TypedDict, total=False):
    """A pool as a client asks for it: `name` and `gpus` (machine profile → number of workers) are needed."""

    name: str
    gpus: dict[str, int]
    bundle: str
    minimum_worker_count: int


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


class ClusterSummary(TypedDict, total=False):
    """Totals over the healthy workers; `total_qps` is the rate of the router that was asked."""

    worker_count: int
    gpu_count: int
    models_loaded: int
    total_qps: float


class ModelSummary(TypedDict, total=False):
    """One loaded model over all healthy workers."""

    name: str
    state: str
    worker_count: int
    gpu_types: list[str]
    total_queue_depth: int


class ClusterFrame(TypedDict, total=False):
    """What a router tells once a second; `timestamp` is Unix seconds."""

    timestamp: float
    cluster: ClusterSummary
    workers: list[WorkerInfo]
    models: list[ModelSummary]


class WorkerModel(TypedDict, total=False):
    """One model of a worker that is loading, loaded or failed; `queue_depth` counts unanswered items."""

    name: str
    state: str
    queue_depth: int
    memory_bytes: int


class WorkerFrame(TypedDict, total=False):
    """What a worker tells when something changed, and at least once a second."""

    ready: bool
    draining: bool
    name: str
    machine_profile: str
    bundle: str
    version: str
    gpu_count: int
    timestamp: float
    loaded_models: list[str]
    models: list[WorkerModel]
    gpus: list[dict[str, Any]]


StatusFrame = ClusterFrame | WorkerFrame

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
    "PoolRequest",
    "PoolInfo",
    "PoolListItem",
    "AssignedWorker",
    "StatusFrame",
    "ClusterFrame",
    "WorkerFrame",
    "ClusterSummary",
    "ModelSummary",
    "WorkerModel",
]
