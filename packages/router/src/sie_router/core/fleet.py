"""The router's picture of the cluster: workers, what is configured, what is wanted. Frozen; `apply` builds the next.

The index answers "who can take this?" with lookups. It holds membership only, never load: most status frames change
a queue depth and nothing else, and those must not rebuild it.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

from sie_router.core.catalog import AnyModel, Models
from sie_router.core.health import HEALTHY, Health, in_rotation

DEFAULT_POOL: Final = "default"
GroupKey = tuple[str, str]


@dataclass(frozen=True, slots=True)
class Group:
    """Workers that are interchangeable: one machine profile, one bundle. Also a pair of metric label values."""

    profile: str
    bundle: str

    @property
    def key(self) -> GroupKey:
        """The group in any spelling."""
        return (self.profile.lower(), self.bundle.lower())


OTHER: Final = Group("other", "other")  # label values of whatever nobody configured


@dataclass(frozen=True, slots=True)
class Worker:
    """One worker as its last status frame told, plus what the router itself noticed.

    `group` holds the labels it is counted under: its configured group, or `OTHER`. `loaded` and `loading` are model
    ids in lower case; `loaded_models` keeps their spelling. `seen_at` is monotonic time in seconds. `is_connected`
    turns false when the status stream or a request found the worker gone, `is_stale` when it fell silent. `ordinal` is
    the number at the end of a pod's name: a StatefulSet removes the highest first. `weight` in (0, 1] is the share of
    requests a worker takes that began to serve at `serving_since`.
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
    queue_depth: int = 0
    loaded: frozenset[str] = frozenset()
    loading: frozenset[str] = frozenset()
    failed: frozenset[str] = frozenset()
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
    def membership(self) -> tuple[bool, Health | None, str, str, frozenset[str], frozenset[str]]:
        """All that the index is made of; equal membership means an equal index."""
        ejected = self.health if self.health.is_ejected else None
        return (self.is_healthy, ejected, self.profile, self.bundle, self.loaded, self.loading)


@dataclass(frozen=True, slots=True)
class Ready:
    """Workers of one group or bundle in rotation, by URL, lowest ordinal first; who of them holds or loads a model."""

    urls: tuple[str, ...]
    loaded: Mapping[str, tuple[str, ...]]
    loading: Mapping[str, tuple[str, ...]]


@dataclass(frozen=True, slots=True)
class Index:
    """Lookups of one fleet. `profiles` maps each real profile in lower case to its spelling."""

    by_group: Mapping[GroupKey, Ready] = field(default_factory=dict)
    by_bundle: Mapping[str, Ready] = field(default_factory=dict)
    profiles: Mapping[str, str] = field(default_factory=dict)
    configured: Mapping[GroupKey, Group] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Fleet:
    """One snapshot. `configured` is ordered: the first group is the default, by convention the cheapest.

    `demand` maps (group, pool) to the monotonic time at which the wish expires.
    """

    configured: tuple[Group, ...] = ()
    profiles: tuple[str, ...] = ()
    models: Models = field(default_factory=AnyModel)
    workers: Mapping[str, Worker] = field(default_factory=dict)
    demand: Mapping[tuple[Group, str], float] = field(default_factory=dict)
    index: Index = field(default_factory=Index)

    def has_healthy(self, group: Group) -> bool:
        """True when a healthy worker of this group exists."""
        return group.key in self.index.by_group


def empty_fleet(configured: Iterable[Group] = (), profiles: Iterable[str] = ()) -> Fleet:
    """A fleet without workers. Profiles of configured groups are real profiles as well."""
    groups = tuple(dict.fromkeys(configured))
    names = {name.lower(): name for name in (*profiles, *(group.profile for group in groups))}
    spelled = tuple(names.values())
    return Fleet(configured=groups, profiles=spelled, index=build_index({}, groups, spelled))


def build_index(workers: Mapping[str, Worker], configured: Iterable[Group], profiles: Iterable[str]) -> Index:
    """Index a fleet; independent of the order of workers."""
    by_group: dict[GroupKey, list[Worker]] = {}
    by_bundle: dict[str, list[Worker]] = {}
    spelling = {name.lower(): name for name in profiles}
    for worker in sorted(workers.values(), key=lambda worker: (worker.ordinal, worker.url)):
        if worker.profile:
            spelling.setdefault(worker.profile.lower(), worker.profile)
        if worker.is_healthy:
            bundle = worker.bundle.lower()
            by_group.setdefault((worker.profile.lower(), bundle), []).append(worker)
            by_bundle.setdefault(bundle, []).append(worker)
    return Index(
        by_group={key: _ready(members) for key, members in by_group.items()},
        by_bundle={key: _ready(members) for key, members in by_bundle.items()},
        profiles=spelling,
        configured={group.key: group for group in configured},
    )


def _ready(members: list[Worker]) -> Ready:
    workers = in_rotation(members)
    loaded: dict[str, list[str]] = {}
    loading: dict[str, list[str]] = {}
    for worker in workers:
        for model in worker.loaded:
            loaded.setdefault(model, []).append(worker.url)
        for model in worker.loading:
            loading.setdefault(model, []).append(worker.url)
    return Ready(
        urls=tuple(worker.url for worker in workers),
        loaded={model: tuple(urls) for model, urls in loaded.items()},
        loading={model: tuple(urls) for model, urls in loading.items()},
    )
