"""The Kubernetes objects the router reads and writes, with the fields it needs. Nothing here talks to anybody.

Of `ObjectMeta` every field that a client may set is kept, so that an object that was read can be written back whole.
"""

from dataclasses import dataclass
from typing import Any, Final, Generic, TypeVar

import msgspec


class Meta(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, rename="camel"):
    """Identity and bookkeeping. `resource_version` is opaque; times are RFC 3339 text, None when unset."""

    name: str = ""
    namespace: str = ""
    uid: str = ""
    resource_version: str = ""
    creation_timestamp: str | None = None
    deletion_timestamp: str | None = None
    labels: dict[str, str] = {}
    annotations: dict[str, str] = {}
    finalizers: tuple[str, ...] = ()
    owner_references: tuple[dict[str, Any], ...] = ()


class ConfigMap(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, rename="camel"):
    """A map of texts, at most 1 MiB in all."""

    metadata: Meta
    data: dict[str, str] = {}


class LeaseSpec(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, rename="camel"):
    """Who holds a lease, and since when; times are RFC 3339 text with microseconds."""

    holder_identity: str | None = None
    lease_duration_seconds: int | None = None
    acquire_time: str | None = None
    renew_time: str | None = None
    lease_transitions: int | None = None


class Lease(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, rename="camel"):
    """A lease of `coordination.k8s.io`."""

    metadata: Meta
    spec: LeaseSpec = LeaseSpec()


class Conditions(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """State of an endpoint; None means unknown, which consumers read as ready, serving and not terminating."""

    ready: bool | None = None
    serving: bool | None = None
    terminating: bool | None = None


class Target(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The object an endpoint stands for; its `uid` is never used twice, unlike a name or an address."""

    uid: str = ""
    name: str = ""


class Endpoint(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, rename="camel"):
    """One pod behind a Service; all addresses are the same pod."""

    addresses: tuple[str, ...] = ()
    conditions: Conditions = Conditions()
    target_ref: Target | None = None


class EndpointPort(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A port of every endpoint of the slice; no number means: all ports."""

    name: str | None = None
    port: int | None = None


class EndpointSlice(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, rename="camel"):
    """Up to a hundred endpoints of one Service. `address_type` is IPv4, IPv6 or FQDN."""

    metadata: Meta
    address_type: str = "IPv4"
    endpoints: tuple[Endpoint, ...] | None = ()
    ports: tuple[EndpointPort, ...] | None = ()


Thing = TypeVar("Thing", ConfigMap, Lease, EndpointSlice)


@dataclass(frozen=True, slots=True)
class Kind(Generic[Thing]):
    """Where the API keeps one kind of object, and how it reads. `group_version` is "v1" or "group/version"."""

    group_version: str
    name: str
    plural: str
    type: type[Thing]

    @property
    def path(self) -> str:
        """The API's own part of the path, in front of the namespace."""
        return f"/api/{self.group_version}" if "/" not in self.group_version else f"/apis/{self.group_version}"


CONFIG_MAPS: Final = Kind("v1", "ConfigMap", "configmaps", ConfigMap)
LEASES: Final = Kind("coordination.k8s.io/v1", "Lease", "leases", Lease)
ENDPOINT_SLICES: Final = Kind("discovery.k8s.io/v1", "EndpointSlice", "endpointslices", EndpointSlice)
