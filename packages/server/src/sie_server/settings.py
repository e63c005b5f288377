"""The worker's settings: defaults, then the environment, then the command line. The only reader of `os.environ`."""

import difflib
import os
import socket
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Final

from sie_protocol.codec import MAX_BODY_BYTES
from sie_protocol.items import MAX_ITEMS
from sie_server.unsupported_settings import UNSUPPORTED

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


def _some_seconds(text: str) -> float:
    if _seconds(text) == 0:
        raise ValueError("expected seconds above 0")
    return _seconds(text)


def home_cache() -> Path:
    """Where downloaded models go unless told otherwise; users without a home have a place for temporary files."""
    try:
        return Path.home() / ".cache" / "sie"
    except RuntimeError:
        return Path(tempfile.gettempdir()) / "sie"


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Everything a worker can be told, and by which variables: of several, the last that is set counts.

    Times in seconds; `models` empty means every model of the bundle. `cpu_batch_tokens`: what fits the cache of a CPU
    core; profiles may ask for less, and accelerators take the profile's own. `cache_max_bytes` None: as much as the
    disk holds. `drain_linger_s`: how long a worker that shuts down still answers, so that routers hear of it.
    `memory_limit_bytes`, `idle_evict_s`, `catalog_interval_s` and `self_test_interval_s`: 0 is none. See
    docs/worker.md.
    """

    host: str = "0.0.0.0"
    port: int = 8080
    device: str = field(default="auto", metadata={"SIE_DEVICE": device_name})
    models_dir: Path = field(default=OWN_CATALOG / "models", metadata={"SIE_MODELS_DIR": Path})
    bundles_dir: Path = field(default=OWN_CATALOG / "bundles", metadata={"SIE_BUNDLES_DIR": Path})
    bundle: str = field(default="default", metadata={"SIE_BUNDLE": str.lower})
    models: tuple[str, ...] = field(default=(), metadata={"SIE_MODEL_FILTER": name_list})
    json_logs: bool = field(default=False, metadata={"SIE_LOG_JSON": _truth})
    tracing: bool = field(default=False, metadata={"SIE_TRACING_ENABLED": _truth})
    log_level: str = field(default="info", metadata={"SIE_LOG_LEVEL": str.lower})
    name: str = field(default="", metadata={"HOSTNAME": str, "POD_NAME": str})
    machine_profile: str = field(default="", metadata={"SIE_MACHINE_PROFILE": str})
    pool: str = field(default="", metadata={"SIE_POOL": str})
    local_cache: Path = field(default_factory=home_cache, metadata={"HF_HOME": _beside_hub, "SIE_LOCAL_CACHE": Path})
    cluster_cache: str = field(default="", metadata={"SIE_CLUSTER_CACHE": str})
    cluster_cache_write: bool = field(default=False, metadata={"SIE_CLUSTER_CACHE_WRITE": _truth})
    hf_fallback: bool = field(default=True, metadata={"SIE_HF_FALLBACK": _truth})
    hf_token: str | None = field(default=None, repr=False, metadata={"HF_TOKEN": str})
    evict_from_disk: bool = field(default=True, metadata={"SIE_DISK_CACHE_ENABLED": _truth})
    disk_pressure_percent: float = field(default=85.0, metadata={"SIE_DISK_PRESSURE_THRESHOLD_PERCENT": _percent})
    cache_max_bytes: int | None = field(default=None, metadata={"SIE_CACHE_MAX_BYTES": _count})
    cores: int = field(default=1, metadata={"SIE_TORCH_NUM_THREADS": _count})
    max_batch_items: int = field(default=64, metadata={"SIE_MAX_BATCH_REQUESTS": _count})
    max_loras: int = field(default=10, metadata={"SIE_MAX_LORAS_PER_MODEL": _count})
    cpu_batch_tokens: int = field(default=512, metadata={"SIE_CPU_BATCH_TOKENS": _count})
    max_queue_items: int = field(
        default=MAX_ITEMS, metadata={"SIE_MAX_CONCURRENT_REQUESTS": _count, "SIE_MAX_QUEUE_ITEMS": _count}
    )
    max_queue_tokens: int = field(default=262_144, metadata={"SIE_MAX_QUEUE_TOKENS": _count})
    queue_timeout_s: float = field(default=120.0, metadata={"SIE_QUEUE_TIMEOUT_S": _some_seconds})
    max_body_bytes: int = field(default=MAX_BODY_BYTES, metadata={"SIE_MAX_REQUEST_BODY_BYTES": _count})
    max_held_body_bytes: int = field(default=256 * 1024 * 1024, metadata={"SIE_MAX_HELD_BODY_BYTES": _count})
    max_held_answer_bytes: int = field(default=1024 * 1024 * 1024, metadata={"SIE_MAX_HELD_ANSWER_BYTES": _count})
    max_text_chars: int = field(default=2 * 1024 * 1024, metadata={"SIE_MAX_ITEM_TEXT_CHARS": _count})
    max_request_pixels: int = field(default=512_000_000, metadata={"SIE_MAX_REQUEST_PIXELS": _count})
    max_watchers: int = field(default=64, metadata={"SIE_MAX_STATUS_WATCHERS": _count})
    catalog_interval_s: float = field(default=2.0, metadata={"SIE_CATALOG_INTERVAL_S": _seconds})
    drain_grace_s: float = field(default=25.0, metadata={"SIE_DRAIN_GRACE_S": _seconds})
    drain_linger_s: float = field(default=0.5, metadata={"SIE_DRAIN_LINGER_S": _seconds})
    preload: tuple[str, ...] = field(default=(), metadata={"SIE_PRELOAD_MODELS": name_list})
    pinned: tuple[str, ...] = field(default=(), metadata={"SIE_PINNED_MODELS": name_list})
    idle_evict_s: float = field(default=0.0, metadata={"SIE_IDLE_EVICT_S": _seconds})
    load_timeout_s: float = field(default=1800.0, metadata={"SIE_MODEL_LOAD_TIMEOUT_S": _seconds})
    evict_drain_s: float = field(default=30.0, metadata={"SIE_EVICT_DRAIN_S": _seconds})
    memory_threshold_percent: float = field(
        default=85.0, metadata={"SIE_MEMORY_PRESSURE_THRESHOLD_PERCENT": _threshold}
    )
    memory_limit_bytes: int = field(default=0, metadata={"SIE_MEMORY_LIMIT_BYTES": _count})
    self_test_interval_s: float = field(default=30.0, metadata={"SIE_SELF_TEST_INTERVAL_S": _seconds})
    self_test_timeout_s: float = field(default=60.0, metadata={"SIE_SELF_TEST_TIMEOUT_S": _some_seconds})


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
    found: dict[str, Any] = {"name": socket.gethostname(), "cores": usable_cores()}
    for setting in fields(Settings):
        for variable, parse in setting.metadata.items():
            text = env.get(variable, "").strip()
            if not text:
                continue
            try:
                found[setting.name] = parse(text)
            except ValueError as error:
                raise ValueError(f"{variable} is '{text}', which cannot be read: {error}") from error
    return Settings(**found)


def variables() -> frozenset[str]:
    """Every variable that `read` looks at."""
    return frozenset(variable for setting in fields(Settings) for variable in setting.metadata)


def meaningless(env: Mapping[str, str]) -> Mapping[str, str]:
    """Variables that mean nothing here, each with what to do instead; routers and clients have some of their own."""
    known = variables()
    found: dict[str, str] = {}
    for name in env:
        if name in known or not name.startswith("SIE_") or name.startswith("SIE_ROUTER_"):
            continue
        unsupported = next((advice for start, advice in UNSUPPORTED.items() if name.startswith(start)), None)
        near = difflib.get_close_matches(name, known, 1, ALMOST_ALIKE)
        advice = unsupported or (f"did you mean {near[0]}?" if near else None)
        if advice is not None:
            found[name] = advice
    return found


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
