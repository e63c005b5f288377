"""The cluster file: what `sie up` runs. Its keys are those of the Helm chart's values, as far as processes can follow.

Only schema and checks; where the bytes come from is the caller's business. Unknown keys are refused, so that a typo
never silently means "default".
"""

import difflib
import re
from collections.abc import Iterator, Mapping
from importlib import resources
from typing import Annotated, Any, get_origin, get_type_hints

import msgspec
import yaml

from sie_protocol.codec import plainly

Count = Annotated[int, msgspec.Meta(ge=0)]
Positive = Annotated[int, msgspec.Meta(ge=1)]
Seconds = Annotated[float, msgspec.Meta(gt=0)]
PortNumber = Annotated[int, msgspec.Meta(ge=0, le=65535)]

_NAME = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?")


class _Section(msgspec.Struct, frozen=True, kw_only=True, rename="camel", forbid_unknown_fields=True):
    """One mapping of the file; keys in camel case."""


class RouterSection(_Section, frozen=True, kw_only=True):
    """The routers. The first listens on `port`, further ones on the next ports; 0: all on any free ones."""

    replicas: Positive = 1
    port: PortNumber = 8080
    retry_after_seconds: Positive = 1


class CommonSection(_Section, frozen=True, kw_only=True):
    """What pools take over unless they say otherwise."""

    bundle: str = "default"


class PoolSection(_Section, frozen=True, kw_only=True):
    """One pool of workers, all of one machine profile (by default the pool's own name) and one bundle."""

    enabled: bool = True
    machine_profile: str | None = None
    bundle: str | None = None
    min_replicas: Count = 0
    max_replicas: Positive = 2


class WorkersSection(_Section, frozen=True, kw_only=True):
    """All pools by name."""

    common: CommonSection = CommonSection()
    pools: dict[str, PoolSection] = {}


class AutoscalingSection(_Section, frozen=True, kw_only=True):
    """Durations in seconds; the defaults are the chart's, meant for machines that take minutes to come.

    `sync_period` is the interval of the Kubernetes autoscaler between one worker and many; in Kubernetes it is a
    setting of the control plane, not of the chart. `fallback_replicas: null` means no fallback.
    """

    enabled: bool = True
    polling_interval: Seconds = 15
    cooldown_period: Seconds = 900
    scale_down_stabilization: Annotated[float, msgspec.Meta(ge=0)] = 300
    queue_depth_threshold: Positive = 10
    queue_depth_activation: Count = 2
    fallback_replicas: Count | None = 2
    sync_period: Seconds = 15


class ClusterFile(_Section, frozen=True, kw_only=True):
    """A whole cluster as the file says it."""

    router: RouterSection = RouterSection()
    workers: WorkersSection = WorkersSection()
    autoscaling: AutoscalingSection = AutoscalingSection()


class Pool(msgspec.Struct, frozen=True):
    """One enabled pool with every default filled in."""

    name: str
    profile: str
    bundle: str
    min_replicas: int
    max_replicas: int


def default_text() -> bytes:
    """The packaged cluster file."""
    return resources.files("sie_cli").joinpath("data", "cluster.yaml").read_bytes()


def decode(text: bytes) -> ClusterFile:
    """Read a cluster file.

    Raises:
        ValueError: the YAML, a key or a value is wrong; the message names it and what would be right.
    """
    try:
        raw = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ValueError(f"the cluster file is not YAML: {error}") from error
    raw = {} if raw is None else raw
    if not isinstance(raw, Mapping):
        found = type(raw).__name__
        raise ValueError(  # noqa: TRY004 - a wrong file is one kind of error, whatever is wrong in it
            f"the cluster file is a {found}; expected a mapping with {_listing(ClusterFile)}"
        )
    if complaint := next(_unknown_keys(raw, ClusterFile, ""), None):
        raise ValueError(complaint)
    try:
        file = msgspec.convert(raw, ClusterFile)
    except msgspec.ValidationError as error:
        raise ValueError(f"the cluster file has a wrong value: {plainly(error)}") from error
    _check(file)
    return file


def pools(file: ClusterFile) -> tuple[Pool, ...]:
    """The enabled pools, in the order of the file."""
    common = file.workers.common.bundle
    return tuple(
        Pool(name, pool.machine_profile or name, pool.bundle or common, pool.min_replicas, pool.max_replicas)
        for name, pool in file.workers.pools.items()
        if pool.enabled
    )


def _check(file: ClusterFile) -> None:
    enabled = pools(file)
    if not enabled:
        raise ValueError("the cluster file enables no pool; add one under workers.pools, for example 'cpu: {}'")
    owners: dict[tuple[str, str], str] = {}
    for pool in enabled:
        for what, name in (("pool", pool.name), ("machineProfile", pool.profile), ("bundle", pool.bundle)):
            if not _NAME.fullmatch(name):
                raise ValueError(f"{what} '{name}': a name has lower-case letters, digits and inner hyphens only")
        if pool.min_replicas > pool.max_replicas:
            raise ValueError(
                f"pool '{pool.name}' has minReplicas {pool.min_replicas} above maxReplicas {pool.max_replicas}"
            )
        other = owners.setdefault((pool.profile, pool.bundle), pool.name)
        if other != pool.name:
            raise ValueError(
                f"pools '{other}' and '{pool.name}' both serve profile '{pool.profile}' with bundle '{pool.bundle}'; "
                "the same demand would start both: give one of them another machineProfile or bundle"
            )


def _unknown_keys(raw: Mapping[Any, Any], kind: type[_Section], path: str) -> Iterator[str]:
    """Complaints about keys that `kind` does not have, outermost first."""
    hints = get_type_hints(kind)
    known = {field.encode_name: hints[field.name] for field in msgspec.structs.fields(kind)}
    for key in raw:
        if key not in known:
            near = difflib.get_close_matches(str(key), known, n=1, cutoff=0.0)[0]
            where = f"under '{path.rstrip('.')}'" if path else "at the top of the cluster file"
            yield f"unknown key '{path}{key}'; did you mean '{near}'? Known {where}: {_listing(kind)}"
    for key, hint in known.items():
        yield from _unknown_below(raw.get(key), hint, f"{path}{key}.")


def _unknown_below(value: Any, hint: Any, path: str) -> Iterator[str]:
    if not isinstance(value, Mapping):
        return
    if isinstance(hint, type) and issubclass(hint, _Section):
        yield from _unknown_keys(value, hint, path)
    elif get_origin(hint) is dict:
        for name, inner in value.items():
            if isinstance(inner, Mapping):
                yield from _unknown_keys(inner, PoolSection, f"{path}{name}.")


def _listing(kind: type[_Section]) -> str:
    return ", ".join(field.encode_name for field in msgspec.structs.fields(kind))
