"""What a snapshot looks like from outside: pure functions over the fleet."""

from collections.abc import Mapping
from typing import Any

from sie_protocol.catalog import DEFAULT_PROFILE, PROFILE_SEPARATOR, ModelConfig
from sie_protocol.errors import ErrorCode
from sie_protocol.items import ModelInfo
from sie_protocol.profiles import offered, profile_id
from sie_protocol.status import MAX_FAILURE_CHARS, ClusterStatus, ClusterSummary, ModelSummary, WorkerInfo
from sie_router.api.pool_views import pool_summaries
from sie_router.core.events import MAX_NAME
from sie_router.core.fleet import Fleet, Worker
from sie_router.core.pools import Caller


def cluster_status(
    fleet: Fleet, inflight: Mapping[str, int], total_qps: float, timestamp: float, caller: Caller
) -> ClusterStatus:
    """One frame: totals over trusted workers, every known worker and loaded model, and the pools of its reader.

    `timestamp` is Unix seconds.
    """
    healthy = [worker for worker in _sorted(fleet) if worker.is_trusted]
    models = tuple(_summary(name, holders, inflight) for name, holders in sorted(_holders(healthy).items()))
    return ClusterStatus(
        timestamp=timestamp,
        cluster=ClusterSummary(
            worker_count=len(healthy),
            gpu_count=sum(worker.gpu_count for worker in healthy),
            models_loaded=len(models),
            total_qps=total_qps,
        ),
        workers=tuple(_info(worker, inflight) for worker in _sorted(fleet)),
        models=models,
        pools=pool_summaries(fleet, caller, timestamp),
    )


def live_profiles(fleet: Fleet) -> list[str]:
    """Machine profiles of healthy workers."""
    return sorted({worker.profile for worker in fleet.workers.values() if worker.is_trusted and worker.profile})


def model_infos(fleet: Fleet) -> list[ModelInfo]:
    """The catalogue joined with what workers have loaded; without a catalogue only the latter."""
    healthy = [worker for worker in _sorted(fleet) if worker.is_trusted]
    listed = fleet.models.listed()
    if not listed:
        return [_seen(name, holders) for name, holders in sorted(_holders(healthy).items())]
    return [_described(model, bundles, healthy, DEFAULT_PROFILE) for model, bundles in listed]


def model_info(fleet: Fleet, name: str) -> ModelInfo | None:
    """One model, by any spelling of its id, or one profile of it as `id:profile`; None when it is not listed."""
    key, _, profile = name.lower().partition(PROFILE_SEPARATOR)
    healthy = [worker for worker in _sorted(fleet) if worker.is_trusted]
    listed = fleet.models.listed()
    if not listed:
        seen = {held.lower(): _seen(held, holders) for held, holders in _holders(healthy).items()}
        return seen.get(name.lower())
    for model, bundles in listed:
        if model.sie_id.lower() == key:
            own = next((each for each in model.profiles if each.lower() == (profile or DEFAULT_PROFILE)), None)
            return None if own is None else _described(model, bundles, healthy, own)
    return None


def queue_depth(worker: Worker, inflight: Mapping[str, int]) -> int:
    """Items at a worker or on their way to it.

    A request on its way is part of what the worker reports as soon as it arrived: the larger of both, not the sum.
    """
    return max(worker.queue_depth, inflight.get(worker.url, 0))


def _sorted(fleet: Fleet) -> list[Worker]:
    return sorted(fleet.workers.values(), key=lambda worker: (worker.name, worker.url))


def _holders(workers: list[Worker]) -> dict[str, list[Worker]]:
    holders: dict[str, list[Worker]] = {}
    for worker in workers:
        for name in worker.loaded_models:
            holders.setdefault(name, []).append(worker)
    return holders


def _summary(name: str, holders: list[Worker], inflight: Mapping[str, int]) -> ModelSummary:
    return ModelSummary(
        name=name,
        state="loaded",
        worker_count=len(holders),
        gpu_types=tuple(sorted({worker.profile for worker in holders})),
        total_queue_depth=sum(queue_depth(worker, inflight) for worker in holders),
    )


def _info(worker: Worker, inflight: Mapping[str, int]) -> WorkerInfo:
    return WorkerInfo(
        name=worker.name,
        url=worker.url,
        gpu=worker.profile,
        gpu_count=worker.gpu_count,
        loaded_models=worker.loaded_models,
        queue_depth=queue_depth(worker, inflight),
        memory_used_bytes=worker.memory_used_bytes,
        memory_total_bytes=worker.memory_total_bytes,
        healthy=worker.is_trusted,
        bundle=worker.bundle,
        bundle_config_hash=worker.bundle_config_hash,
        breaker=worker.health.phase.name.lower(),
    )


def _described(model: ModelConfig, bundles: tuple[str, ...], healthy: list[Worker], profile: str) -> ModelInfo:
    name = profile_id(model, profile)
    key = name.lower()
    model = _given(model, profile)
    holders = [worker for worker in healthy if key in worker.loaded]
    inputs = [kind for kind in ("text", "image") if getattr(model.inputs, kind)]
    profiles: dict[str, dict[str, Any]] = {
        name: {"is_default": name == DEFAULT_PROFILE} for name in sorted(model.profiles)
    }
    return ModelInfo(
        name=name,
        inputs=inputs,
        outputs=list(model.outputs),
        dims=model.dims,
        loaded=bool(holders),
        state=_state(key, healthy),
        last_error=_last_error(key, healthy),
        max_sequence_length=model.max_sequence_length,
        profiles=profiles,
        bundles=list(bundles),
        worker_count=len(holders),
        workers=[worker.url for worker in holders],
    )


def _given(model: ModelConfig, profile: str) -> ModelConfig:
    """The model as callers of a profile see it. What no worker would accept is left out."""
    try:
        return offered(model, profile)
    except ValueError:
        return model


def _last_error(key: str, healthy: list[Worker]) -> dict[str, Any] | None:
    """Why the first worker that could not load it could not, as the worker itself tells it, cut short."""
    for worker in healthy:
        failure = worker.failed.get(key)
        if failure is not None:
            return {
                "code": str(ErrorCode.MODEL_LOAD_FAILED),
                "error_class": failure.error_class[:MAX_NAME],
                "message": failure.message[:MAX_FAILURE_CHARS],
                "attempts": failure.attempts,
                "permanent": failure.permanent,
                "worker": worker.name,
            }
    return None


def _seen(name: str, holders: list[Worker]) -> ModelInfo:
    return ModelInfo(
        name=name,
        loaded=True,
        state="loaded",
        bundles=sorted({worker.bundle for worker in holders}),
        worker_count=len(holders),
        workers=[worker.url for worker in holders],
    )


def _state(key: str, healthy: list[Worker]) -> str:
    for state in ("loaded", "loading", "failed"):
        if any(key in getattr(worker, state) for worker in healthy):
            return state
    return "available"
