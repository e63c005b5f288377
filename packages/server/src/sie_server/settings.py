"""The worker's settings: defaults, then the environment, then the command line. The only reader of `os.environ`."""

import difflib
import os
import socket
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, TypeVar

from sie_protocol.codec import MAX_BODY_BYTES
from sie_protocol.items import MAX_ITEMS
from sie_server.former import FORMER

OWN_CATALOG: Final = Path(__file__).parent / "catalog"
# Quota and period, as a container sees its control group of version 2 and 1.
CPU_LIMITS: Final = (
    ("sys/fs/cgroup/cpu.max",),
    ("sys/fs/cgroup/cpu/cpu.cfs_quota_us", "sys/fs/cgroup/cpu/cpu.cfs_period_us"),
)
DEVICES: Final = ("auto", "cpu", "cuda", "mps")

# Percent of memory: below, half of the device would lie idle; above, nothing is left for the batches themselves.
LEAST_THRESHOLD: Final = 50
MOST_THRESHOLD: Final = 99
ALMOST_ALIKE: Final = 0.85  # of 1

T = TypeVar("T")


def home_cache() -> Path:
    """Where downloaded models go unless told otherwise; users without a home have a place for temporary files."""
    try:
        return Path.home() / ".cache" / "sie"
    except RuntimeError:
        return Path(tempfile.gettempdir()) / "sie"


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Everything a worker can be told. Times in seconds; `models` empty means every model of the bundle.

    `cpu_batch_tokens`: what fits the cache of a CPU core; profiles may ask for less, and accelerators take the
    profile's own. `cache_max_bytes` None: as much as the disk holds. `drain_linger_s`: how long a worker that shuts
    down still answers, so that routers hear of it. `memory_limit_bytes`, `idle_evict_s`, `catalog_interval_s` and
    `self_test_interval_s`: 0 is none. See docs/worker.md.
    """

    host: str = "0.0.0.0"
    port: int = 8080
    device: str = "auto"
    models_dir: Path = OWN_CATALOG / "models"
    bundles_dir: Path = OWN_CATALOG / "bundles"
    bundle: str = "default"
    models: tuple[str, ...] = ()
    json_logs: bool = False
    tracing: bool = False
    log_level: str = "info"
    name: str = ""
    machine_profile: str = ""
    pool: str = ""
    local_cache: Path = field(default_factory=home_cache)
    cluster_cache: str = ""
    cluster_cache_write: bool = False
    hf_fallback: bool = True
    hf_token: str | None = field(default=None, repr=False)
    evict_from_disk: bool = True
    disk_pressure_percent: float = 85.0
    cache_max_bytes: int | None = None
    cores: int = 1
    max_batch_items: int = 64
    max_loras: int = 10
    cpu_batch_tokens: int = 512
    max_queue_items: int = MAX_ITEMS
    max_queue_tokens: int = 262_144
    queue_timeout_s: float = 120.0
    max_body_bytes: int = MAX_BODY_BYTES
    max_held_body_bytes: int = 256 * 1024 * 1024
    max_held_answer_bytes: int = 1024 * 1024 * 1024
    max_text_chars: int = 2 * 1024 * 1024
    max_request_pixels: int = 512_000_000
    max_watchers: int = 64
    catalog_interval_s: float = 2.0
    drain_grace_s: float = 25.0
    drain_linger_s: float = 0.5
    preload: tuple[str, ...] = ()
    pinned: tuple[str, ...] = ()
    idle_evict_s: float = 0.0
    load_timeout_s: float = 1800.0
    evict_drain_s: float = 30.0
    memory_threshold_percent: float = 85.0
    memory_limit_bytes: int = 0
    self_test_interval_s: float = 30.0
    self_test_timeout_s: float = 60.0


def use_huge_pages() -> None:
    """Have torch take its large buffers in huge pages, unless the environment says otherwise; before it is loaded.

    About 5 % more throughput on a CPU. The one place that writes the environment: torch reads this from nowhere else.
    """
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")


def environment() -> Mapping[str, str]:
    """The process environment, for `read`."""
    return os.environ


def read(env: Mapping[str, str]) -> Settings:
    """Settings from the environment.

    Raises:
        ValueError: a variable has a value that cannot be read; the message names it.
    """
    default = Settings()

    def get(key: str, kind: Callable[[str], T], otherwise: T) -> T:
        text = env.get(key, "").strip()
        if not text:
            return otherwise
        try:
            return kind(text)
        except ValueError as error:
            raise ValueError(f"{key} is '{text}', which cannot be read: {error}") from error

    return Settings(
        device=get("SIE_DEVICE", device_name, default.device),
        models_dir=get("SIE_MODELS_DIR", Path, default.models_dir),
        bundles_dir=get("SIE_BUNDLES_DIR", Path, default.bundles_dir),
        bundle=get("SIE_BUNDLE", str.lower, default.bundle),
        models=get("SIE_MODEL_FILTER", name_list, default.models),
        json_logs=get("SIE_LOG_JSON", _truth, default.json_logs),
        tracing=get("SIE_TRACING_ENABLED", _truth, default.tracing),
        log_level=get("SIE_LOG_LEVEL", str.lower, default.log_level),
        name=env.get("POD_NAME") or env.get("HOSTNAME") or socket.gethostname(),
        machine_profile=get("SIE_MACHINE_PROFILE", str, default.machine_profile),
        pool=get("SIE_POOL", str, default.pool),
        local_cache=get("SIE_LOCAL_CACHE", Path, get("HF_HOME", _beside_hub, default.local_cache)),
        cluster_cache=get("SIE_CLUSTER_CACHE", str, default.cluster_cache),
        cluster_cache_write=get("SIE_CLUSTER_CACHE_WRITE", _truth, default.cluster_cache_write),
        hf_fallback=get("SIE_HF_FALLBACK", _truth, default.hf_fallback),
        hf_token=get("HF_TOKEN", str, default.hf_token),
        evict_from_disk=get("SIE_DISK_CACHE_ENABLED", _truth, default.evict_from_disk),
        disk_pressure_percent=get("SIE_DISK_PRESSURE_THRESHOLD_PERCENT", _percent, default.disk_pressure_percent),
        cache_max_bytes=get("SIE_CACHE_MAX_BYTES", _count, default.cache_max_bytes),
        cores=get("SIE_TORCH_NUM_THREADS", _count, usable_cores()),
        max_batch_items=get("SIE_MAX_BATCH_REQUESTS", _count, default.max_batch_items),
        max_loras=get("SIE_MAX_LORAS_PER_MODEL", _count, default.max_loras),
        cpu_batch_tokens=get("SIE_CPU_BATCH_TOKENS", _count, default.cpu_batch_tokens),
        max_queue_items=get(
            "SIE_MAX_QUEUE_ITEMS", _count, get("SIE_MAX_CONCURRENT_REQUESTS", _count, default.max_queue_items)
        ),
        max_queue_tokens=get("SIE_MAX_QUEUE_TOKENS", _count, default.max_queue_tokens),
        queue_timeout_s=get("SIE_QUEUE_TIMEOUT_S", _seconds, default.queue_timeout_s),
        max_body_bytes=get("SIE_MAX_REQUEST_BODY_BYTES", _count, default.max_body_bytes),
        max_held_body_bytes=get("SIE_MAX_HELD_BODY_BYTES", _count, default.max_held_body_bytes),
        max_held_answer_bytes=get("SIE_MAX_HELD_ANSWER_BYTES", _count, default.max_held_answer_bytes),
        max_text_chars=get("SIE_MAX_ITEM_TEXT_CHARS", _count, default.max_text_chars),
        max_request_pixels=get("SIE_MAX_REQUEST_PIXELS", _count, default.max_request_pixels),
        max_watchers=get("SIE_MAX_STATUS_WATCHERS", _count, default.max_watchers),
        catalog_interval_s=get("SIE_CATALOG_INTERVAL_S", _seconds, default.catalog_interval_s),
        drain_grace_s=get("SIE_DRAIN_GRACE_S", _seconds, default.drain_grace_s),
        drain_linger_s=get("SIE_DRAIN_LINGER_S", _seconds, default.drain_linger_s),
        preload=get("SIE_PRELOAD_MODELS", name_list, default.preload),
        pinned=get("SIE_PINNED_MODELS", name_list, default.pinned),
        idle_evict_s=get("SIE_IDLE_EVICT_S", _seconds, default.idle_evict_s),
        load_timeout_s=get("SIE_MODEL_LOAD_TIMEOUT_S", _seconds, default.load_timeout_s),
        evict_drain_s=get("SIE_EVICT_DRAIN_S", _seconds, default.evict_drain_s),
        memory_threshold_percent=get(
            "SIE_MEMORY_PRESSURE_THRESHOLD_PERCENT", _threshold, default.memory_threshold_percent
        ),
        memory_limit_bytes=get("SIE_MEMORY_LIMIT_BYTES", _count, default.memory_limit_bytes),
        self_test_interval_s=get("SIE_SELF_TEST_INTERVAL_S", _seconds, default.self_test_interval_s),
        self_test_timeout_s=get("SIE_SELF_TEST_TIMEOUT_S", _seconds, default.self_test_timeout_s),
    )


class _Asked(Mapping[str, str]):
    """An empty environment that remembers what it is asked for."""

    def __init__(self) -> None:
        self.names: set[str] = set()

    def __getitem__(self, name: str) -> str:
        self.names.add(name)
        raise KeyError(name)

    def __iter__(self) -> Iterator[str]:
        return iter(())

    def __len__(self) -> int:
        return 0


def variables() -> frozenset[str]:
    """Every variable that `read` looks at."""
    asked = _Asked()
    read(asked)
    return frozenset(asked.names)


def meaningless(env: Mapping[str, str]) -> Mapping[str, str]:
    """Variables that mean nothing here, each with what to do instead; routers and clients have some of their own."""
    known = variables()
    found: dict[str, str] = {}
    for name in env:
        if name in known or not name.startswith("SIE_") or name.startswith("SIE_ROUTER_"):
            continue
        former = next((advice for start, advice in FORMER.items() if name.startswith(start)), None)
        near = difflib.get_close_matches(name, known, 1, ALMOST_ALIKE)
        advice = former or (f"did you mean {near[0]}?" if near else None)
        if advice is not None:
            found[name] = advice
    return found


def name_list(text: str) -> tuple[str, ...]:
    """Names between commas."""
    return tuple(name.strip() for name in text.split(",") if name.strip())


def device_name(text: str) -> str:
    """A kind of device.

    Raises:
        ValueError: there is no such kind.
    """
    if text.lower() not in DEVICES:
        raise ValueError(f"expected one of {', '.join(DEVICES)}")
    return text.lower()


def usable_cores(root: Path = Path("/")) -> int:
    """Cores this process may use: those it is pinned to, and no more than its container's CPU limit."""
    pinned = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    for files in CPU_LIMITS:
        try:
            quota, period = " ".join((root / each).read_text() for each in files).split()
            if int(quota) > 0:  # version 1 says -1 for no limit, version 2 "max"
                return max(1, min(pinned, int(quota) // int(period)))
        except (OSError, ValueError):
            continue
    return pinned


def _truth(text: str) -> bool:
    if text.lower() in {"1", "true", "yes", "on"}:
        return True
    if text.lower() in {"0", "false", "no", "off"}:
        return False
    raise ValueError("expected true or false")


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise ValueError("expected a whole number of at least 1, such as 8")
    return int(text)


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise ValueError("expected a number such as 30") from None


def _threshold(text: str) -> float:
    value = _number(text)
    if not LEAST_THRESHOLD <= value <= MOST_THRESHOLD:
        raise ValueError(f"expected {LEAST_THRESHOLD} to {MOST_THRESHOLD}")
    return value


def _beside_hub(text: str) -> Path:
    return Path(text) / "sie"


def _percent(text: str) -> float:
    if not 0 < _number(text) <= 100:  # noqa: PLR2004 - a percentage
        raise ValueError("expected a percentage above 0, at most 100")
    return _number(text)


def _seconds(text: str) -> float:
    if not 0 <= _number(text) < float("inf"):
        raise ValueError("expected seconds, 0 or more")
    return _number(text)
