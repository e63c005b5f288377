"""The sets of weights a worker can hold, and the names by which callers ask for them."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from sie_protocol.catalog import DEFAULT_PROFILE, PROFILE_SEPARATOR, LoraConfig, ModelConfig
from sie_protocol.errors import ErrorCode, Problem
from sie_protocol.profiles import offered, profile_id
from sie_server.adapters.base import ModelSpec, WeightsSource
from sie_server.core.lifecycle import Failure, State, loading_retry_after_s
from sie_server.core.options import load_options
from sie_server.core.profiles import Weights, check_profile, sets_of, tasks_used, unknown, weights_of
from sie_server.core.tasks import BySide, tasks_of
from sie_server.engine.failures import load_failed
from sie_server.engine.jobs import making_room
from sie_server.engine.loop import ModelLoop


@dataclass(slots=True, eq=False)
class LoraSlot:
    """One LoRA on top of one set of weights; written by `Loras` on the event loop's thread only.

    `value` is the adapter's own; `users` are requests that run with it.
    """

    lora: LoraConfig
    state: State = State.AVAILABLE
    value: Any = None
    failure: Failure | None = None
    attempts: int = 0
    users: int = 0
    used_at: float = 0.0
    size_bytes: int = 0


@dataclass(slots=True, eq=False)
class Slot:
    """One set of weights; written by `Models`, `Residency` and `Loras` on the event loop's thread only.

    Times are monotonic; `size_bytes` is what the weights take or are about to take, 0 while nobody knows. `outdated`:
    the catalogue has changed, and what is here is another set of weights than `wanted`, which is None when the model is
    gone from the catalogue. `loras` go with the weights.
    """

    weights: Weights
    wanted: Weights | None
    outdated: bool = False
    is_pinned: bool = False
    state: State = State.AVAILABLE
    loop: ModelLoop | None = None
    failure: Failure | None = None
    attempts: int = 0
    loading_since: float = 0.0
    loaded_at: float = 0.0
    used_at: float = 0.0
    size_bytes: int = 0
    loras: dict[LoraConfig, LoraSlot] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """By which callers ask for it."""
        return self.weights.name

    @property
    def held_bytes(self) -> int:
        """What goes when the weights go: they and the LoRAs on top of them."""
        return self.size_bytes + sum(own.size_bytes for own in self.loras.values() if own.state is State.LOADED)

    @property
    def model(self) -> ModelConfig:
        """The catalogue's model under the profile that owns the weights."""
        return self.weights.model

    @property
    def depth(self) -> int:
        """Items accepted and not answered."""
        return 0 if self.loop is None else self.loop.depth


@dataclass(frozen=True, slots=True)
class Choice:
    """What one request means: a model under one of its profiles, and the weights that it runs on."""

    name: str
    model: ModelConfig
    slot: Slot

    @property
    def lora(self) -> LoraConfig | None:
        """What goes on top of the weights."""
        return self.model.profiles[DEFAULT_PROFILE].lora

    @property
    def tasks(self) -> BySide[str]:
        """Which LoRAs inside the weights its queries and documents run with, where it has none on top of them."""
        return tasks_of(self.model.profiles[DEFAULT_PROFILE].adapter_options)


class Slots:
    """Every slot of a worker. `models` are keyed by their ids in lower case; `pinned` names those that never go."""

    def __init__(self, models: Mapping[str, ModelConfig], pinned: tuple[str, ...] = ()) -> None:
        self.models: Mapping[str, ModelConfig] = {}
        self._slots: dict[str, Slot] = {}
        self._choices: dict[str, Choice] = {}
        self._pinned = pinned
        self.adopt(models)
        for name in pinned:
            self.find(name, {})

    def adopt(self, models: Mapping[str, ModelConfig]) -> list[Slot]:
        """Have exactly these models; the slots that are outdated by it, and have to give up what they hold.

        A slot whose weights would be the same keeps them, whatever else changed.
        """
        self.models = models
        wanted = {each.name: each for model in models.values() for each in sets_of(model)}
        outdated = [slot for slot in self._slots.values() if _turn(slot, wanted.pop(slot.name, None))]
        self._slots |= {name: Slot(weights, weights) for name, weights in wanted.items()}
        self._choices = {}
        for model in models.values():
            self._name(model)
        mine = {choice.slot for name in self._pinned if (choice := self._choices.get(name.lower())) is not None}
        for slot in self._slots.values():
            slot.is_pinned = slot in mine
        return outdated

    def renew(self, slot: Slot) -> bool:
        """An outdated slot holds nothing any more: let it become what is wanted; False when nothing is."""
        slot.failure, slot.attempts, slot.outdated = None, 0, False
        if slot.wanted is None:
            del self._slots[slot.name]
            return False
        slot.state, slot.weights = State.AVAILABLE, slot.wanted
        return True

    def __iter__(self) -> Iterator[Slot]:
        return iter(tuple(self._slots.values()))

    def find(self, name: str, options: Mapping[str, Any]) -> Choice:
        """The model and profile that a request means, its name in any spelling.

        Raises:
            Problem: MODEL_NOT_FOUND; INVALID_INPUT when `options.profile` does not exist or contradicts the name.
        """
        found = self._choices.get(name.lower())
        if found is None:
            raise unknown(self.models, name)
        profile = check_profile(found.model, name, options)
        return found if profile is None else self._choices[f"{found.model.sie_id}{PROFILE_SEPARATOR}{profile}".lower()]

    def profiles_of(self, model: ModelConfig) -> dict[str, Choice]:
        """For each profile of a model what it means."""
        return {
            name: self._choices[f"{model.sie_id}{PROFILE_SEPARATOR}{name}".lower()] for name in sorted(model.profiles)
        }

    def _name(self, model: ModelConfig) -> None:
        for profile, owner in weights_of(model).items():
            slot = self._slots[profile_id(model, owner)]
            choice = Choice(profile_id(model, profile), offered(model, profile), slot)
            self._choices[f"{model.sie_id}{PROFILE_SEPARATOR}{profile}".lower()] = choice
            self._choices[choice.name.lower()] = choice


def _turn(slot: Slot, wanted: Weights | None) -> bool:
    """Tell a slot what the catalogue wants of it now; True when it has just become outdated."""
    was, slot.wanted = slot.outdated, wanted
    if not was and wanted is not None and _load_alike(slot.weights, wanted):
        slot.weights = wanted
        return False
    slot.outdated = True
    return not was


def _load_alike(one: Weights, other: Weights) -> bool:
    """True when what is loaded of one is what would be loaded of the other."""
    return _identity(one) == _identity(other)


def _identity(weights: Weights) -> tuple[object, ...]:
    adapter = weights.model.profiles[DEFAULT_PROFILE].adapter
    return spec_of(weights.model), adapter, weights.model.tasks, weights.max_batch_tokens


def spec_of(model: ModelConfig) -> ModelSpec:
    """What an adapter is told about a model of the catalogue."""
    profile = model.profiles[DEFAULT_PROFILE]
    options = load_options(profile)
    return ModelSpec(
        name=model.sie_id,
        source=WeightsSource(
            model.weights_path,
            model.weights_package,
            model.hf_id,
            model.hf_revision,
            model.allow_pickle,
            options.get("graph"),
        ),
        dims=model.dims,
        options=options,
        max_sequence_length=model.max_sequence_length,
        precision=profile.compute_precision,
        tasks=tasks_used(model),
    )


def not_there(slot: Slot, now: float) -> Problem:
    """The refusal of a request whose model is not loaded: it may be, or it cannot."""
    if slot.state is State.FAILED and not slot.outdated and slot.failure is not None:
        return load_failed(slot.name, slot.failure)
    if slot.outdated:
        return Problem(
            ErrorCode.MODEL_LOADING,
            f"model '{slot.name}' has changed in the catalogue and is loaded anew; try again",
            retry_after_s=1,
            details={"model": slot.name},
        )
    if slot.state is State.UNLOADING:
        return making_room(slot.name)
    return Problem(
        ErrorCode.MODEL_LOADING,
        f"model '{slot.name}' is loading on this worker; try again",
        retry_after_s=loading_retry_after_s(now - slot.loading_since),
        details={"model": slot.name},
    )
