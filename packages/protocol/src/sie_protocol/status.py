"""Status frames: what a worker tells its routers, and what a router tells those who watch the cluster.

A worker sends a frame when something changed and, if nothing did, as a heartbeat. Frames are JSON text. A frame that
lacks a field reads as the safe value (not ready, no models), so older workers never break a router.
"""

import msgspec

HEARTBEAT_S = 1.0  # a worker with nothing new to say repeats itself this often
STALE_AFTER_S = 10.0  # a router that heard nothing for this long gives the worker no new requests


class GpuStatus(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One device of a worker; memory in bytes, 0 when unknown."""

    device: str = ""
    name: str = ""
    memory_used_bytes: int = 0
    memory_total_bytes: int = 0


MAX_FAILURE_CHARS = 500  # of the message of a failed load; every frame repeats it


class ModelFailure(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Why a model could not be loaded; `permanent`: this worker will not try again by itself."""

    error_class: str = ""
    message: str = ""
    attempts: int = 0
    permanent: bool = False


class ModelStatus(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One model that is not merely available: loading, loaded, unloading or failed.

    `aliases` are further names (`model:profile`) that its weights answer to; a LoRA on top of them has a row of its own
    under the name of its profile, and no queue. `queue_depth` counts items that were accepted for it and are not
    answered yet. `memory_bytes` is what its weights take. `failure` is there while it is failed.
    """

    name: str
    aliases: tuple[str, ...] = ()
    state: str = "loaded"
    queue_depth: int = 0
    memory_bytes: int = 0
    failure: ModelFailure | None = None


class WorkerStatus(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One frame of `/ws/status`. `queue_depth` of the worker is the sum over its models."""

    ready: bool = False
    draining: bool = False
    name: str = ""
    machine_profile: str = ""
    pool_name: str = ""
    bundle: str = "default"
    bundle_config_hash: str = ""
    version: str = ""
    gpu_count: int = 0
    max_batch_requests: int = 64
    timestamp: float = 0.0
    loaded_models: tuple[str, ...] = ()
    models: tuple[ModelStatus, ...] = ()
    gpus: tuple[GpuStatus, ...] = ()

    @property
    def queue_depth(self) -> int:
        """Items accepted by the worker and not answered yet."""
        return sum(model.queue_depth for model in self.models)


class ClusterSummary(msgspec.Struct, frozen=True, kw_only=True):
    """Totals over the healthy workers of a cluster; `total_qps` is this router's own rate over the last minute."""

    worker_count: int
    gpu_count: int
    models_loaded: int
    total_qps: float


class WorkerInfo(msgspec.Struct, frozen=True, kw_only=True):
    """One worker as a router sees it. `gpu` is its machine profile; `queue_depth` includes requests on their way.

    `breaker` is `closed` while requests succeed, else `open`, `half_open` or `probing`.
    """

    name: str
    url: str
    gpu: str
    gpu_count: int
    loaded_models: tuple[str, ...]
    queue_depth: int
    memory_used_bytes: int
    memory_total_bytes: int
    healthy: bool
    bundle: str
    bundle_config_hash: str
    breaker: str = "closed"


class PoolSummary(msgspec.Struct, frozen=True, kw_only=True):
    """One pool. `worker_count` are healthy workers, `lease_s` the seconds until its lease ends; null: it has none."""

    name: str
    state: str
    gpus: dict[str, int]
    worker_count: int
    lease_s: float | None


class ModelSummary(msgspec.Struct, frozen=True, kw_only=True):
    """One loaded model over all healthy workers."""

    name: str
    state: str
    worker_count: int
    gpu_types: tuple[str, ...]
    total_queue_depth: int


class ClusterStatus(msgspec.Struct, frozen=True, kw_only=True):
    """One frame of `/ws/cluster-status`; `GET /health` carries the same parts. `pools` are those its reader may use."""

    timestamp: float
    cluster: ClusterSummary
    workers: tuple[WorkerInfo, ...]
    models: tuple[ModelSummary, ...]
    pools: tuple[PoolSummary, ...] = ()
