"""What an operator can set. The only reader of the environment; flags win over it, and nothing is written to it."""

import difflib
import math
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from enum import Enum
from pathlib import Path
from typing import Any, Final, TypeVar
from urllib.parse import urlsplit

import msgspec

from sie_protocol.codec import MAX_BODY_BYTES
from sie_router.core.catalog import DEFAULT_BUNDLE
from sie_router.core.fleet import Group
from sie_router.core.leases import LEASE_S
from sie_router.core.pools import MAX_WORKERS
from sie_router.core.rate import Rate

LEVELS: Final = ("critical", "error", "warning", "info", "debug")
PREFIX: Final = "SIE_ROUTER_"
ALMOST_ALIKE: Final = 0.85  # of 1
_TRUE: Final = frozenset({"1", "true", "yes", "on"})
_FALSE: Final = frozenset({"", "0", "false", "no", "off"})
_SCHEMES: Final = frozenset({"http", "dns+http"})
_DNS_LABEL: Final = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
LEAST: Final = 1e-3  # of numbers that must be positive
Number = TypeVar("Number", int, float)


LEAST_SECRET: Final = 16  # characters: nobody guesses as many
AUTH_MODES: Final = ("none", "static", "token")  # the last two are the same


class Exempt(Enum):
    """What needs no token where other things do."""

    NOTHING = "false"
    METRICS = "metrics"  # what Prometheus reads
    OPERATIONAL = "true"  # that, health, the pages for humans


@dataclass(frozen=True, slots=True)
class AuthSettings:
    """Who may call; without tokens and without a proxy's secret, everybody.

    `proxy_secret` is the password by which an authenticating proxy shows that it is the one who names a user.
    """

    tokens: tuple[str, ...] = ()
    admin_token: str | None = None
    exempt: Exempt = Exempt.NOTHING
    proxy_secret: str | None = None


@dataclass(frozen=True, slots=True)
class Kubernetes:
    """Where in a cluster the workers are. An empty namespace is the router's own; no file: the cluster it runs in.

    `port` is a number, or the name of a port of the Services. `release` stands in front of the names of pools.
    """

    namespace: str = ""
    services: tuple[str, ...] = ("sie-worker",)
    port: str = "8080"
    kubeconfig: Path | None = None
    release: str = "sie"


@dataclass(frozen=True, slots=True)
class Flags:
    """What the command line said; None and empty mean: nothing."""

    host: str | None = None
    port: int | None = None
    workers: tuple[str, ...] = ()
    models_dir: Path | None = None
    bundles_dir: Path | None = None
    groups: tuple[str, ...] = ()
    retry_after_s: int | None = None
    estimated_wait_s: int | None = None
    pools_file: Path | None = None
    log_level: str | None = None
    json_logs: bool | None = None
    tracing: bool | None = None
    kubernetes: bool | None = None
    k8s_namespace: str | None = None
    k8s_services: tuple[str, ...] = ()
    k8s_port: str | None = None
    kubeconfig: Path | None = None


def _number(variable: str, default: Number, least: float = LEAST) -> Number:
    """A setting that a variable may tell, or a flag of the same name if there is one."""
    return field(default=default, metadata={"variable": variable, "least": least})


@dataclass(frozen=True, slots=True)
class Settings:
    """Durations are seconds. `groups` is ordered: the first is where requests without a profile start a worker."""

    host: str = "0.0.0.0"
    port: int = 8080
    workers: tuple[str, ...] = ()
    kubernetes: Kubernetes | None = None
    groups: tuple[Group, ...] = ()
    profiles: tuple[str, ...] = ()
    models_dir: Path | None = None
    bundles_dir: Path | None = None
    retry_after_s: int = _number("SIE_ROUTER_RETRY_AFTER_S", 120)
    estimated_wait_s: int = _number("SIE_ROUTER_ESTIMATED_WAIT_S", 180)
    log_level: str = "info"
    json_logs: bool = False
    tracing: bool = False
    connect_timeout_s: float = _number("SIE_ROUTER_CONNECT_TIMEOUT_S", 2.0)
    request_timeout_s: float = _number("SIE_ROUTER_REQUEST_TIMEOUT_S", 300.0)
    drain_s: float = _number("SIE_ROUTER_DRAIN_S", 0.0, least=0)
    rate: Rate | None = None
    max_concurrency: int = _number("SIE_ROUTER_MAX_CONCURRENCY", 4096)
    max_connections_per_worker: int = _number("SIE_ROUTER_MAX_CONNECTIONS_PER_WORKER", 1024)
    max_body_bytes: int = _number("SIE_ROUTER_MAX_BODY_BYTES", MAX_BODY_BYTES)
    max_held_bytes: int = _number("SIE_ROUTER_MAX_HELD_BYTES", 1 << 30)
    max_wait_s: int = _number("SIE_ROUTER_MAX_WAIT_S", 120, least=0)
    max_waiting: int = _number("SIE_ROUTER_MAX_WAITING", 1024)
    max_waiting_bytes: int = _number("SIE_ROUTER_MAX_WAITING_BYTES", 256 << 20)
    pools_file: Path | None = None
    lease_s: float = _number("SIE_ROUTER_LEASE_S", LEASE_S, least=1)
    max_pools: int = _number("SIE_ROUTER_MAX_POOLS", 100)
    max_pool_workers: int = _number("SIE_ROUTER_MAX_POOL_WORKERS", MAX_WORKERS)
    max_pools_per_owner: int = _number("SIE_ROUTER_MAX_POOLS_PER_OWNER", 20)
    max_workers_per_owner: int | None = None
    auth: AuthSettings = AuthSettings()


def read_settings(flags: Flags, environ: Mapping[str, str]) -> Settings:
    """Settings from flags, then environment, then defaults.

    Raises:
        ValueError: a value cannot be used; the message names it and says what can.
    """
    return _read(flags, _Environment(environ))


def meaningless(environ: Mapping[str, str]) -> Mapping[str, str]:
    """Variables that mean nothing to a router, by name, with the one that was probably meant.

    Kubernetes sets some for a Service named sie-router; these have addresses as values, or end in what is an address's.
    """
    asked = _Environment({"SIE_ROUTER_KUBERNETES": "true", "SIE_AUTH_MODE": "static", "SIE_ADMIN_TOKEN": "any"})
    _read(Flags(), asked)
    found: dict[str, str] = {}
    for name, value in environ.items():
        if name in asked.asked or not name.startswith(PREFIX) or "://" in value or "_SERVICE_" in name:
            continue
        near = difflib.get_close_matches(name, sorted(asked.asked), 1, ALMOST_ALIKE)
        if near:
            found[name] = near[0]
    return found


def _read(flags: Flags, env: "_Environment") -> Settings:
    default = Settings()
    profiles = _profiles(env)
    groups = tuple(_group(text) for text in flags.groups or env.list("SIE_ROUTER_GROUPS"))
    models_dir, bundles_dir = (
        flags.models_dir or env.path("SIE_MODELS_DIR"),
        flags.bundles_dir or env.path("SIE_BUNDLES_DIR"),
    )
    if (models_dir is None) != (bundles_dir is None):
        raise ValueError("SIE_MODELS_DIR and SIE_BUNDLES_DIR (--models-dir, --bundles-dir) go together; one is missing")
    level = (flags.log_level or env.text("SIE_LOG_LEVEL") or default.log_level).lower()
    if level not in LEVELS:
        raise ValueError(f"log level '{level}' does not exist; choose one of: {', '.join(LEVELS)}")
    return Settings(
        host=flags.host or default.host,
        port=_port(default.port if flags.port is None else flags.port),
        workers=tuple(_worker(url) for url in flags.workers or env.list("SIE_ROUTER_WORKERS")),
        kubernetes=_kubernetes(flags, env),
        groups=groups or tuple(Group(profile, DEFAULT_BUNDLE) for profile in profiles),
        profiles=profiles,
        models_dir=models_dir,
        bundles_dir=bundles_dir,
        log_level=level,
        json_logs=env.flag("SIE_LOG_JSON") if flags.json_logs is None else flags.json_logs,
        tracing=env.flag("SIE_TRACING_ENABLED") if flags.tracing is None else flags.tracing,
        rate=_rate(env),
        pools_file=flags.pools_file or env.path("SIE_ROUTER_POOLS_FILE"),
        max_workers_per_owner=env.number("SIE_ROUTER_MAX_WORKERS_PER_OWNER", 0) or None,
        auth=_auth(env),
        **_numbers(flags, env),
    )


def settings_of_process(flags: Flags) -> Settings:
    """`read_settings` with the environment this process was started in."""
    return read_settings(flags, os.environ)


def meaningless_of_process() -> Mapping[str, str]:
    """`meaningless` of that environment."""
    return meaningless(os.environ)


class _Environment:
    """Typed access by name; a set but empty variable counts as absent. `asked`: the names it was asked for."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._environ = environ
        self.asked: set[str] = set()

    def text(self, name: str) -> str | None:
        self.asked.add(name)
        return self._environ.get(name, "").strip() or None

    def list(self, name: str) -> tuple[str, ...]:
        return tuple(part.strip() for part in (self.text(name) or "").split(",") if part.strip())

    def path(self, name: str) -> Path | None:
        text = self.text(name)
        return None if text is None else Path(text)

    def flag(self, name: str) -> bool:
        text = (self.text(name) or "").lower()
        if text not in _TRUE | _FALSE:
            raise ValueError(f"{name}='{text}' is neither true nor false")
        return text in _TRUE

    def number(self, name: str, default: Number, flag: Number | None = None, least: float = LEAST) -> Number:
        text = self.text(name) if flag is None else str(flag)
        if text is None:
            return default
        try:
            value = type(default)(text)
        except ValueError:
            value = type(default)(-1)
        if not least <= value < float("inf"):
            raise ValueError(f"{name}='{text}' is not usable; expected a positive {type(default).__name__}")
        return value


def _numbers(flags: Flags, env: _Environment) -> dict[str, Any]:
    found = {}
    for each in (each for each in fields(Settings) if each.metadata):
        variable, least = each.metadata["variable"], each.metadata["least"]
        found[each.name] = env.number(variable, each.default, getattr(flags, each.name, None), least)
    return found


def _auth(env: _Environment) -> AuthSettings:
    """Open only where that is said, or where nothing at all is: a typo must not open a router."""
    said = env.text("SIE_AUTH_MODE")
    mode = (said or "none").lower()
    if mode not in AUTH_MODES:
        raise ValueError(f"SIE_AUTH_MODE='{said}' does not exist; choose one of: {', '.join(AUTH_MODES)}")
    tokens = env.list("SIE_AUTH_TOKENS") or env.list("SIE_AUTH_TOKEN")
    admin, proxy_secret = env.text("SIE_ADMIN_TOKEN"), env.text("SIE_AUTH_PROXY_SECRET")
    if mode == "none":
        if said is None and (tokens or admin or proxy_secret):
            raise ValueError(
                "tokens are set, but SIE_AUTH_MODE is not; set it to 'static', or to 'none' to ignore them"
            )
        return AuthSettings()
    if not tokens and admin is None and proxy_secret is None:
        raise ValueError(f"SIE_AUTH_MODE is '{mode}' without a token; set SIE_AUTH_TOKENS or SIE_ADMIN_TOKEN")
    if admin in tokens:
        raise ValueError("SIE_ADMIN_TOKEN is one of SIE_AUTH_TOKENS as well; every holder of it would be an admin")
    if proxy_secret is not None and (len(proxy_secret) < LEAST_SECRET or ":" in proxy_secret):
        raise ValueError(f"SIE_AUTH_PROXY_SECRET cannot be used; take {LEAST_SECRET} or more characters without ':'")
    if proxy_secret is not None and proxy_secret in (*tokens, admin):
        raise ValueError("SIE_AUTH_PROXY_SECRET is a token as well; whoever has that could name any user")
    return AuthSettings(tokens, admin, _exempt(env), proxy_secret)


def _exempt(env: _Environment) -> Exempt:
    name = "SIE_AUTH_EXEMPT_OPERATIONAL"
    if (env.text(name) or "").lower() == Exempt.METRICS.value:
        return Exempt.METRICS
    return Exempt.OPERATIONAL if env.flag(name) else Exempt.NOTHING


def _rate(env: _Environment) -> Rate | None:
    """What one caller may ask a second; as much may come at once as comes in a second, where nothing else is said."""
    per_s, burst = env.number("SIE_ROUTER_RATE_LIMIT", 0.0, least=0), env.number("SIE_ROUTER_RATE_BURST", 0)
    if per_s == 0:
        if burst:
            raise ValueError("SIE_ROUTER_RATE_BURST is set, but SIE_ROUTER_RATE_LIMIT is not; set both or neither")
        return None
    return Rate(per_s, burst or math.ceil(per_s))


def _profiles(env: _Environment) -> tuple[str, ...]:
    """Real profiles. Where machine profiles are described, other configured names are mere GPU types."""
    text = env.text("SIE_ROUTER_MACHINE_PROFILES")
    if text is None:
        return env.list("SIE_ROUTER_CONFIGURED_GPUS")
    try:
        described = msgspec.json.decode(text, type=dict[str, Any])
    except msgspec.MsgspecError as error:
        raise ValueError(f"SIE_ROUTER_MACHINE_PROFILES is not a JSON object of profiles: {error}") from error
    return tuple(described) or env.list("SIE_ROUTER_CONFIGURED_GPUS")


def _group(text: str) -> Group:
    profile, _, bundle = text.partition(":")
    if not profile.strip():
        raise ValueError(f"group '{text}' names no machine profile; expected PROFILE:BUNDLE, for example l4:default")
    return Group(profile.strip(), bundle.strip() or DEFAULT_BUNDLE)


def _kubernetes(flags: Flags, env: _Environment) -> Kubernetes | None:
    is_wanted = env.flag("SIE_ROUTER_KUBERNETES") if flags.kubernetes is None else flags.kubernetes
    if not is_wanted:
        return None
    default = Kubernetes()
    namespace = flags.k8s_namespace or env.text("SIE_ROUTER_K8S_NAMESPACE") or default.namespace
    services = flags.k8s_services or env.list("SIE_ROUTER_K8S_SERVICE") or default.services
    release = env.text("SIE_ROUTER_K8S_RELEASE") or default.release
    for name in (*services, release, *((namespace,) if namespace else ())):
        if not _DNS_LABEL.fullmatch(name):
            raise ValueError(
                f"'{name}' is no name of a Kubernetes Service, release or namespace; expected letters, digits and -"
            )
    port = flags.k8s_port or env.text("SIE_ROUTER_K8S_PORT") or default.port
    if not (0 < int(port) < 1 << 16 if port.isdecimal() else _DNS_LABEL.fullmatch(port)):
        raise ValueError(f"worker port '{port}' is neither a number up to 65535 nor the name of a port")
    return Kubernetes(namespace, services, port, flags.kubeconfig or env.path("KUBECONFIG"), release)


def _worker(url: str) -> str:
    parts = urlsplit(url)
    try:
        port = parts.port
    except ValueError:
        port = 0
    if parts.scheme not in _SCHEMES or not parts.hostname or port == 0 or parts.path.strip("/") or parts.query:
        raise ValueError(f"worker '{url}' is not usable; expected http://HOST:PORT, or dns+http://HOST:PORT")
    return f"{parts.scheme}://{parts.netloc}"


def _port(port: int) -> int:
    if not 0 <= port < 1 << 16:
        raise ValueError(f"port {port} does not exist; expected 0 (any free one) to 65535")
    return port
