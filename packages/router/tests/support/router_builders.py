"""Values for the router's tests, with everything beside the point filled in."""

from collections.abc import Iterable, Mapping
from typing import Any

from sie_protocol.catalog import (
    BundleConfig,
    Catalog,
    EmptyTask,
    EncodeTask,
    ModelConfig,
    ProfileConfig,
    Tasks,
    VectorTask,
    build_catalog,
)
from sie_protocol.status import ModelStatus, WorkerStatus
from sie_protocol.target import ModelRef
from sie_router.core.events import Event, WorkerSeen, apply
from sie_router.core.fleet import Fleet, Group
from sie_router.core.index import empty_fleet
from sie_router.core.pools import Pool
from sie_router.core.route import Ask

MODEL = "BAAI/bge-m3"
L4 = Group("l4", "default")


def status(  # noqa: PLR0913 - one keyword for each fact a test may care about
    name: str = "w",
    *,
    profile: str = "l4",
    bundle: str = "default",
    ready: bool = True,
    draining: bool = False,
    depth: int = 0,
    loaded: Iterable[str] = (),
    loading: Iterable[str] = (),
) -> WorkerStatus:
    """A frame; `depth` items wait for the first model."""
    names = tuple(loaded)
    states = [(each, "loaded") for each in names] + [(each, "loading") for each in loading]
    models = [ModelStatus(name=each, state=state) for each, state in states]
    return WorkerStatus(
        ready=ready,
        draining=draining,
        name=name,
        machine_profile=profile,
        bundle=bundle,
        gpu_count=1,
        loaded_models=names,
        models=(*models, ModelStatus(name="queue", state="available", queue_depth=depth)),
    )


def url(name: str) -> str:
    """The URL of a worker that exists only on paper."""
    return f"http://{name}:80"


def seen(name: str = "w", **facts: Any) -> WorkerSeen:
    """An event; see `status`."""
    return WorkerSeen(url(name), status(name, **facts))


def pool(name: str, gpus: Mapping[str, int] | None = None, **facts: Any) -> Pool:
    """A pool, of one L4 if nothing else is said."""
    return Pool(name, {"l4": 1} if gpus is None else gpus, **facts)


def fleet(*events: Event, groups: Iterable[Group] = (L4,), profiles: Iterable[str] = (), now: float = 0.0) -> Fleet:
    """The fleet after these events, all at the same time."""
    state = empty_fleet(groups, profiles)
    for event in events:
        state = apply(state, event, now)
    return state


def ask(model: str = MODEL, *, profile: str | None = None, pool: str | None = None, bundle: str | None = None) -> Ask:
    """What a request wants."""
    return Ask(ModelRef(model, bundle), profile, pool)


def catalog() -> Catalog:
    """Two bundles: both run the first model, only `vision` the second."""

    def model(name: str, adapter: str) -> ModelConfig:
        tasks = Tasks(encode=EncodeTask(dense=VectorTask(8)), score=EmptyTask())
        return ModelConfig(
            sie_id=name, tasks=tasks, profiles={"default": ProfileConfig(adapter=adapter)}, max_sequence_length=512
        )

    bundles = (BundleConfig("default", ("dense",), 1), BundleConfig("vision", ("dense", "clip"), 2))
    return build_catalog((model(MODEL, "dense"), model("org/clip", "clip")), bundles)
