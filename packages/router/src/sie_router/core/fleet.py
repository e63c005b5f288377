"""The router's picture of the cluster: workers, pools, what is configured and wanted. Frozen; `apply` builds the next.

The index answers "who can take this?" with lookups. It holds membership only, never load: most status frames change
a queue depth and nothing else, and those must not rebuild it.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

import msgspec

from sie_protocol.status import ModelFailure
from sie_router.core.catalog import AnyModel, Models
from sie_router.core.health import HEALTHY, Health
from sie_router.core.leases import LEASE_S
from sie_router.core.pools import DEFAULT_POOL, Pool

GroupKey = tuple[str, str]


class Group(msgspec.Struct, frozen=True):
    """Workers that are interchangeable: one machine profile, one bundle. Also a pair of metric label values.

    A struct, whose hash is computed in C: every request is counted under its group.
    """

    profile: str
    bundle: str

    @property
    def key(self) -> GroupKey:
        """The group in any spelling."""
        return (self.profile.lower(), self.bundle.lower())


OTHER: Final = Group("other", "other")  # label values of whatever nobody configured


class Source(StrEnum):
    """What a router has to hear of before it can tell who may serve a request."""

    POOLS = "the list of pools"
    WORKERS = "its workers"


@dataclass(frozen=True, slots=True)
class Worker:
    """One worker as its last status frame told, plus what the router itself noticed.

    `group` holds the labels it is counted under: its configured group, or `OTHER`. `loaded`, `loading` and `failed` are
    by model id in lower case; `loaded_models` keeps their spelling. `seen_at` is monotonic time in seconds.
    `is_connected` turns false when the status stream or a request found the worker gone, `is_stale` when it fell
    silent. One that does not serve has been awaited since `awaited_since`; `is_late` turns true when that lasts too
    long for a start. `ordinal` is the number at the end of a pod's name: a StatefulSet removes the highest first.
    `weight` in (0, 1] is the share of requests a worker takes that began to serve at `serving_since`.
    """

    url: str
    name: str
    profile: str
    bundle: str
    group: Group
    seen_at: float
    is_ready: bool = False
    is_draining: bool = False
    is_connected: bool = True
    is_stale: bool = False
    awaited_since: float = 0.0
    is_late: bool = False
    queue_depth: int = 0
    loaded: frozenset[str] = frozenset()
    loading: frozenset[str] = frozenset()
    failed: Mapping[str, ModelFailure] = field(default_factory=dict)
    loaded_models: tuple[str, ...] = ()
    gpu_count: int = 0
    memory_used_bytes: int = 0
    memory_total_bytes: int = 0
    bundle_config_hash: str = ""
    ordinal: int = 0
    health: Health = HEALTHY
    weight: float = 1.0
    serving_since: float = 0.0

    @property
    def is_healthy(self) -> bool:
        """True when the worker takes new requests, by its own word and by its connection."""
        return self.is_ready and self.is_connected and not self.is_draining and not self.is_stale

    @property
    def is_trusted(self) -> bool:
        """True when the worker is healthy and its requests succeed. Others get requests only for want of better."""
        return self.is_healthy and not self.health.is_ejected

    @property
    def is_awaited(self) -> bool:
        """True when the worker may take requests again: it gets ready, or was lost. One lost for longer is stale."""
        return not (self.is_healthy or self.is_draining or self.is_stale)

    @property
    def is_coming(self) -> bool:
        """True when the worker is likely to take requests within seconds: it is awaited, and not for too long."""
        return self.is_awaited and not self.is_late

    @property
    def is_assignable(self) -> bool:
        """True when the worker may belong to a pool.

        One whose connection broke stays until it has been silent for long, so that a short break moves no tenant.
        """
        return self.is_ready and not self.is_draining and not self.is_stale

    @property
    def membership(self) -> tuple[object, ...]:
        """All that the index is made of; equal membership means an equal index."""
        ejected = self.health if self.health.is_ejected else None
        places = (self.is_healthy, self.is_coming, self.is_assignable, ejected, self.name, self.profile, self.bundle)
        return (*places, self.loaded, self.loading)


@dataclass(frozen=True, slots=True)
class Ready:
    """Workers of one group or bundle in rotation, by URL, lowest ordinal first; who of them holds or loads a model."""

    urls: tuple[str, ...]
    loaded: Mapping[str, tuple[str, ...]]
    loading: Mapping[str, tuple[str, ...]]


@dataclass(frozen=True, slots=True)
class Scope:
    """The healthy workers that requests of one pool may run on, and no others."""

    by_group: Mapping[GroupKey, Ready] = field(default_factory=dict)
    by_bundle: Mapping[str, Ready] = field(default_factory=dict)


NOBODY: Final = Scope()


@dataclass(frozen=True, slots=True)
class Index:
    """Lookups of one fleet. `profiles` maps each real profile in lower case to its spelling.

    `scopes` are by pool name; that of `DEFAULT_POOL` holds the workers that nobody reserved. A pool without healthy
    workers has none. `soon` are what they would be if the workers were ready that are likely to be so in seconds, for
    requests that find nobody now; empty when there are no such workers. `owners` maps the URL of each reserved worker
    to its pool.
    """

    scopes: Mapping[str, Scope] = field(default_factory=dict)
    soon: Mapping[str, Scope] = field(default_factory=dict)
    owners: Mapping[str, str] = field(default_factory=dict)
    profiles: Mapping[str, str] = field(default_factory=dict)
    configured: Mapping[GroupKey, Group] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Demand:
    """Requests of one pool that found nobody in a group, since `began`; times are in monotonic seconds.

    It counts until `until`. Since `since`, close together, `new` ones came for the first time and `again` came back;
    `most` ever did of either, and that until `most_until`.
    """

    began: float
    until: float
    since: float
    most_until: float
    new: int = 0
    again: int = 0
    most: int = 0


@dataclass(frozen=True, slots=True)
class Fleet:
    """One snapshot. `configured` is ordered: the first group is the default, by convention the cheapest.

    `pools` are by name, without the default one, which is whatever they leave; without a renewal they end after
    `lease_s`. `unheard` is what was not heard of yet: nobody is served meanwhile, as a worker that is not known would
    be started once more, and a pool that is not known could not keep others off its workers. `demand` is by
    (group, pool); `startups` are the seconds that it took of late to meet one of a group.
    """

    configured: tuple[Group, ...] = ()
    profiles: tuple[str, ...] = ()
    models: Models = field(default_factory=AnyModel)
    workers: Mapping[str, Worker] = field(default_factory=dict)
    pools: Mapping[str, Pool] = field(default_factory=dict)
    demand: Mapping[tuple[Group, str], Demand] = field(default_factory=dict)
    startups: Mapping[Group, tuple[float, ...]] = field(default_factory=dict)
    index: Index = field(default_factory=Index)
    unheard: frozenset[Source] = frozenset()
    lease_s: float = LEASE_S

    def scope(self, pool: str = DEFAULT_POOL) -> Scope:
        """Who may serve a pool now."""
        return self.index.scopes.get(pool, NOBODY)

    def has_healthy(self, group: Group, pool: str = DEFAULT_POOL) -> bool:
        """True when a pool has a healthy worker of this group."""
        return group.key in self.scope(pool).by_group

    def pool_of(self, worker: Worker) -> str:
        """The pool whose requests a worker gets."""
        return self.index.owners.get(worker.url, DEFAULT_POOL)
