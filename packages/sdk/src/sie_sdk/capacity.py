"""The endpoints that tell what a cluster can do now. Looking never starts workers; only a request for a model does."""

from collections.abc import Callable, Collection
from functools import partial
from typing import Any, Final, NoReturn

import msgspec

from sie_protocol.errors import ErrorCode
from sie_protocol.headers import HEALTH
from sie_protocol.names import suggestion
from sie_protocol.target import parse_target
from sie_sdk import answers, calls, flow
from sie_sdk.errors import RequestError, ServerError
from sie_sdk.messages import Answer, Flow, Plan, Request, T
from sie_sdk.retry import Terms
from sie_sdk.settings import checked_target
from sie_sdk.types import CapacityInfo, WorkerInfo

POLL_INTERVAL_S: Final = 5.0
WARM_UP_TEXT: Final = "warmup"
SPOT_SUFFIX: Final = "-spot"
_NOT_FOUND: Final = 404
ROUTER_TYPES: Final = ("router", "gateway")  # old and newer clusters name the same thing


def get_capacity(terms: Terms, gpu: str | None) -> Plan[CapacityInfo]:
    """Healthy workers, GPUs and models of the cluster.

    Args:
        terms: of the call.
        gpu: count only workers of this machine profile, in any case; "l4" also finds "l4-spot" where only that is
            configured, as the router does. Of "pool/profile" only the profile counts: health does not tell pools.

    Raises:
        RequestError: the base URL is that of a worker, not of a router.
    """
    wanted = checked_target(gpu)
    return _of_router(flow.single(Request("GET", HEALTH, calls.ASK_JSON), terms, partial(_capacity, wanted)))


def wait_for_capacity(terms: Terms, gpu: str, poll_interval_s: float) -> Plan[CapacityInfo]:
    """Look every `poll_interval_s` until at least one healthy worker of the profile is there.

    This only looks. It cannot wake a pool that is scaled to zero: use `warm_up` for that.

    Raises:
        ServerError: GPU_NOT_CONFIGURED, at once, when the cluster has other profiles only, as for a request of it.
    """
    checked_target(gpu)
    if not poll_interval_s > 0:
        raise ValueError(f"poll_interval_s is {poll_interval_s!r}; expected a number greater than 0")
    request = Request("GET", HEALTH, calls.ASK_JSON)
    return _of_router(flow.until(request, terms, partial(_capacity_if_any, gpu), _has_worker, poll_interval_s))


def warm_up(terms: Terms, gpu: str, model: str) -> Plan[CapacityInfo]:
    """Embed a short text, which creates demand and loads the model, then tell the capacity.

    The model must be one that embeds text.
    """
    first = calls.encode_request(terms, model, [{"text": WARM_UP_TEXT}], None)
    return flow.after(first, Request("GET", HEALTH, calls.ASK_JSON), terms, partial(_capacity, gpu))


class _Cluster(msgspec.Struct, frozen=True):
    worker_count: int = 0
    gpu_count: int = 0
    models_loaded: int = 0


class _Health(msgspec.Struct, frozen=True):
    status: str = ""
    type: str = ""
    cluster: _Cluster = _Cluster()
    configured_gpu_types: list[str] = []
    live_gpu_types: list[str] = []
    workers: list[WorkerInfo] = []


def or_of_worker(plan: Plan[T], of_worker: Callable[[RequestError], T]) -> Plan[T]:
    """What a question for `/health` comes to, or, where a server has none, so that it is a worker, `of_worker`."""

    def begin(start: float) -> Flow[T]:
        try:
            return (yield from plan(start))
        except RequestError as error:
            if error.status_code != _NOT_FOUND:
                raise
            return of_worker(error)

    return begin


def _of_router(plan: Plan[T]) -> Plan[T]:
    return or_of_worker(plan, _refuse_worker)


def _refuse_worker(error: RequestError) -> NoReturn:
    raise _no_router(f"has no {HEALTH}") from error


def _no_router(what: str) -> RequestError:
    message = f"the server at the base URL {what}, so it is no router; only routers know the capacity"
    return RequestError(message, code="NOT_A_ROUTER")


def _has_worker(capacity: CapacityInfo) -> bool:
    return capacity["worker_count"] > 0


def _capacity(gpu: str | None, answer: Answer) -> CapacityInfo:
    return answers.read(answer, kind=_Health, pick=partial(_counted, gpu))


def _capacity_if_any(gpu: str | None, answer: Answer) -> CapacityInfo:
    """The capacity of a profile that there is, or may come to be: a cluster that names none has any."""
    return answers.read(answer, kind=_Health, pick=partial(_counted_if_any, gpu))


def _counted_if_any(gpu: str | None, health: Any) -> CapacityInfo:
    profile, configured = parse_target(gpu).profile, health.configured_gpu_types
    real = {name.lower() for name in (*configured, *(each.get("gpu", "") for each in health.workers))}
    if profile is None or not configured or resolve_profile(profile, real) in real:
        return _counted(gpu, health)
    meant = suggestion(profile, configured) or f"; it has: {', '.join(configured)}"
    raise ServerError(f"the cluster has no machine profile '{profile}'{meant}", code=ErrorCode.GPU_NOT_CONFIGURED)


def _counted(gpu: str | None, health: Any) -> CapacityInfo:
    if health.type not in ROUTER_TYPES:
        raise _no_router(f"says it is '{health.type}'")
    profile = parse_target(gpu).profile
    workers, worker_count, gpu_count = health.workers, health.cluster.worker_count, health.cluster.gpu_count
    if profile is not None:
        wanted = resolve_profile(profile, health.configured_gpu_types)
        workers = [each for each in workers if each.get("healthy") and each.get("gpu", "").lower() == wanted]
        worker_count, gpu_count = len(workers), sum(each.get("gpu_count", 0) for each in workers)
    return {
        "status": health.status,
        "worker_count": worker_count,
        "gpu_count": gpu_count,
        "models_loaded": health.cluster.models_loaded,
        "configured_gpu_types": health.configured_gpu_types,
        "live_gpu_types": health.live_gpu_types,
        "workers": workers,
    }


def resolve_profile(profile: str, configured: Collection[str]) -> str:
    """The configured profile (lower case) that a router understands by `profile`: itself, or its spot variant."""
    wanted, known = profile.lower(), {each.lower() for each in configured}
    spot = wanted + SPOT_SUFFIX
    return spot if wanted not in known and spot in known else wanted
