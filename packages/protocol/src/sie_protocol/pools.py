"""Resource pools as clients see them. Only `PoolSpec` and the last renewal are ever stored; the rest is derived."""

from typing import NotRequired, TypedDict


class PoolSpec(TypedDict):
    """What a tenant asked for: machine profile → number of workers."""

    gpus: dict[str, int]
    minimum_worker_count: int
    bundle: NotRequired[str]


class AssignedWorker(TypedDict):
    """One worker that serves a pool; `gpu` is its machine profile."""

    name: str
    url: str
    gpu: str


class PoolStatus(TypedDict):
    """`state` is pending or active; times are Unix seconds.

    `lease_duration_s`: without a renewal the pool ends this long after `last_renewed`; absent where there is no lease,
    and from published routers, whose leases last 1200 s.
    """

    state: str
    assigned_workers: list[AssignedWorker]
    created_at: float
    last_renewed: float
    lease_duration_s: NotRequired[float]


class PoolInfo(TypedDict):
    """Body of `GET /v1/pools/{name}`."""

    name: str
    spec: PoolSpec
    status: PoolStatus


class PoolListItem(TypedDict):
    """One pool of `GET /v1/pools`; `worker_count` are the healthy workers that serve it."""

    name: str
    state: str
    gpus: dict[str, int]
    worker_count: int
