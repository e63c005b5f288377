"""What a client is configured with: arguments before the environment before defaults. The only reader of it."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Final
from urllib.parse import urlsplit

import msgspec

from sie_protocol.names import suggestion
from sie_protocol.target import parse_target
from sie_sdk.retry import MAX_OOM_RETRIES, Terms

BASE_URL: Final = "SIE_BASE_URL"
API_KEY: Final = "SIE_API_KEY"
TIMEOUT_S: Final = 30.0
CONNECT_TIMEOUT_S: Final = 10.0
MAX_CONNECTIONS: Final = 100
API_PATH: Final = "/v1"  # in front of every path already
PROVISION_TIMEOUT_S: Final = 900.0  # a GPU node, its image and a large model rarely need more than ten minutes


class PoolSpec(msgspec.Struct, frozen=True, omit_defaults=True):
    """A pool as it is asked for: its name, machine profile → number of workers, and what may be left out.

    `minimum_worker_count`: workers that shall run at any time, also without requests. Unset: 0.
    """

    name: str
    gpus: dict[str, int]
    bundle: str | None = None
    minimum_worker_count: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Checked settings of one client; `base_url` has no slash at its end."""

    base_url: str
    timeout_s: float
    connect_timeout_s: float
    api_key: str | None = field(repr=False)
    gpu: str | None
    options: Mapping[str, Any]
    max_connections: int
    pool: PoolSpec | None = None
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)

    def terms(
        self,
        gpu: str | None,
        model: str | None,
        *,
        wait_for_capacity: bool,
        budget_s: float | None,
        max_oom_retries: int = MAX_OOM_RETRIES,
    ) -> Terms:
        """The terms of one call; what it does not say is the client's default.

        Raises:
            ValueError: the budget is not positive.
        """
        budget_s = _positive("the time for the whole call", budget_s, PROVISION_TIMEOUT_S)
        target = self.gpu if gpu is None else gpu
        if target is None and self.pool is not None:
            target = f"{self.pool.name}/"
        return Terms(self.timeout_s, budget_s, wait_for_capacity, target, model, max_oom_retries=max_oom_retries)

    def question_terms(self) -> Terms:
        """The terms of a call that asks about the cluster: one timeout for everything, no waiting for capacity."""
        return Terms(self.timeout_s, self.timeout_s, wait_for_capacity=False)


def resolve(  # noqa: PLR0913 - what a client is configured with
    base_url: str | None,
    *,
    timeout_s: float | None = None,
    connect_timeout_s: float | None = None,
    read_timeout_s: float | None = None,
    api_key: str | None = None,
    gpu: str | None = None,
    options: Mapping[str, Any] | None = None,
    max_connections: int | None = None,
    pool: Mapping[str, Any] | None = None,
    headers: Mapping[str, str] | None = None,
    environ: Mapping[str, str] = os.environ,
) -> Settings:
    """Complete and check what the caller of a client gave; None is the default.

    Raises:
        ValueError: a value is missing or makes no sense; the message says which and what to do.
        TypeError: as above, for a value of another kind.
    """
    attempt = ("timeout_s", timeout_s) if read_timeout_s is None else ("read_timeout_s", read_timeout_s)
    return Settings(
        base_url=checked_url(base_url or environ.get(BASE_URL) or ""),
        timeout_s=_positive(*attempt, TIMEOUT_S),
        connect_timeout_s=_positive("connect_timeout_s", connect_timeout_s, CONNECT_TIMEOUT_S),
        api_key=_checked_key(api_key or environ.get(API_KEY)),
        gpu=checked_target(gpu),
        options=MappingProxyType(dict(checked_options(options))),
        max_connections=int(_positive("max_connections", max_connections, MAX_CONNECTIONS)),
        pool=None if pool is None else _pool_of(pool),
        headers={name: _checked_header(name, value) for name, value in (headers or {}).items()},
    )


def pool_spec(
    name: str,
    gpus: Mapping[str, int] | None = None,
    bundle: str | None = None,
    minimum_worker_count: int | None = None,
) -> PoolSpec:
    """Check what can be checked here of a pool; the rest is the router's.

    Raises:
        ValueError: the name or the numbers can be nobody's pool.
        TypeError: as above, for values of other kinds.
    """
    if not isinstance(name, str):
        raise TypeError(f"the name of a pool is {name!r:.80}; expected a string such as 'tenant-abc'")
    if not name.strip() or "/" in name:
        raise ValueError(f"'{name}' is no pool name; expected letters, digits and dashes")
    if gpus is not None and not isinstance(gpus, Mapping):
        raise TypeError(f"gpus is {gpus!r:.80}; expected a dict of machine profiles and numbers such as {{'l4': 1}}")
    if not gpus:
        raise ValueError("a pool reserves at least one worker; name it in gpus, for example {'l4': 1}")
    return PoolSpec(name, dict(gpus), bundle, minimum_worker_count)


def checked_url(url: str) -> str:
    """The address without a slash at its end.

    Raises:
        ValueError: it can be no server's.
    """
    if not url:
        raise ValueError(f"no base_url: pass one, for example SIEClient('http://localhost:8080'), or set {BASE_URL}")
    try:
        parts = urlsplit(url)
        is_one = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:  # a port beyond 65535, half of an IPv6 address
        is_one = False
    if not is_one or parts.query or parts.fragment:
        raise ValueError(f"the address '{url}' is not like http://host:port or https://host/path")
    bare = url.rstrip("/")
    if bare.endswith(API_PATH):
        wanted = bare.removesuffix(API_PATH)
        raise ValueError(f"leave {API_PATH} out of the address: '{wanted}' in place of '{url}'")
    return bare


def checked_target(gpu: str | None) -> str | None:
    """What a call may say of where it wants to run: "profile", "pool/profile" or "pool/"; None: nothing.

    Raises:
        TypeError: it is no string.
        ValueError: it has more parts than that, or characters that no HTTP header can carry.
    """
    if gpu is None:
        return None
    wanted = "expected a machine profile such as 'l4', or 'pool/profile'"
    if not isinstance(gpu, str):
        raise TypeError(f"gpu is {gpu!r:.80}; {wanted}")
    # A router splits what it hears once more, so another slash would choose another pool than the first.
    if not gpu.isascii() or not gpu.isprintable() or "/" in (parse_target(gpu).profile or ""):
        raise ValueError(f"gpu is {gpu!r:.80}; {wanted}")
    return gpu


def checked_options(options: Mapping[str, Any] | None) -> Mapping[str, Any]:
    """The options of a client or of a call; None stands for none.

    Raises:
        TypeError: they are no dict.
    """
    if options is None:
        return {}
    if not isinstance(options, Mapping):
        raise TypeError(f"options is {options!r:.80}; expected a dict such as {{'profile': 'fast'}}")
    return options


def _pool_of(pool: Mapping[str, Any]) -> PoolSpec:
    example = "{'name': 'tenant-abc', 'gpus': {'l4': 2}}"
    if not isinstance(pool, Mapping):
        raise TypeError(
            f"pool is {pool!r:.80}; expected what it reserves, such as {example}; gpu='name/l4' uses one that is there"
        )
    known = PoolSpec.__struct_fields__
    for key in pool:
        if key not in known:
            raise TypeError(f"pool has no '{key}'{suggestion(str(key), known)}; it may have: {', '.join(known)}")
    if "name" not in pool:
        raise TypeError(f"pool has no name; expected something such as {example}")
    return pool_spec(**pool)


def _checked_header(name: str, value: str) -> str:
    if not (name and f"{name}{value}".isascii() and f"{name}{value}".isprintable()) or ":" in name or " " in name:
        raise ValueError(f"the header '{name}' or its value holds characters that no HTTP header can carry")
    return value


def _checked_key(key: str | None) -> str | None:
    stripped = (key or "").strip()
    if not (stripped.isascii() and stripped.isprintable()):
        raise ValueError("api_key holds characters that no HTTP header can carry; check how it was copied")
    return stripped or None


def _positive(name: str, value: float | None, default: float) -> float:
    if value is None:
        return default
    wanted = f"{name} is {value!r:.80}; expected a number greater than 0"
    try:
        is_one = 0 < value < float("inf")
    except TypeError as error:
        raise TypeError(f"{wanted}, not a {type(value).__name__}") from error
    if not is_one:
        raise ValueError(wanted)
    return value
