"""The sets of weights a worker can hold, and the names by which callers ask for them."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from sie_protocol.catalog import DEFAULT_PROFILE, PROFILE_SEPARATOR, ModelConfig
from sie_protocol.errors import ErrorCode, Problem
from sie_server.adapters.base import ModelSpec, WeightsSource
from sie_server.core.lifecycle import Failure, State, loading_retry_after_s
from sie_server.core.options import load_options
from sie_server.core.profiles import check_profile, profile_id, under, unknown, weights_of
from sie_server.engine.jobs import making_room
from sie_server.engine.loop import ModelLoop


@dataclass(slots=True, eq=False)
class Slot:
    """One set of weights; written by `Models` and `Residency` on the event loop's thread only.

    `model` is the catalogue's model under the profile that owns the weights, `aliases` the other profiles that run on
    them. Times are monotonic; `size_bytes` is what the weights take or are about to take, 0 while nobody knows.
    """

    name: str
    model: ModelConfig
    max_batch_tokens: int
    aliases: tuple[str, ...] = ()
    is_pinned: bool = False
    state: State = State.AVAILABLE
    loop: ModelLoop | None = None
    failure: Failure | None = None
    attempts: int = 0
    loading_since: float = 0.0
    loaded_at: float = 0.0
    used_at: float = 0.0
    size_bytes: int = 0

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


class Slots:
    """Every slot of a worker; which there are never changes. `models` are keyed by their ids in lower case."""

    def __init__(self, models: Mapping[str, ModelConfig]) -> None:
        self._models = models
        self._slots: list[Slot] = []
        self._choices: dict[str, Choice] = {}
        for model in models.values():
            self._add(model)

    def __iter__(self) -> Iterator[Slot]:
        return iter(self._slots)

    def find(self, name: str, options: Mapping[str, Any]) -> Choice:
        """The model and profile that a request means, its name in any spelling.

        Raises:
            Problem: MODEL_NOT_FOUND; INVALID_INPUT when `options.profile` does not exist or contradicts the name.
        """
        found = self._choices.get(name.lower())
        if found is None:
            raise unknown(self._models, name)
        profile = check_profile(found.model, name, options)
        return found if profile is None else self._choices[f"{found.model.sie_id}{PROFILE_SEPARATOR}{profile}".lower()]

    def pin(self, names: tuple[str, ...]) -> None:
        """Have these never unloaded.

        Raises:
            Problem: MODEL_NOT_FOUND.
        """
        for name in names:
            self.find(name, {}).slot.is_pinned = True

    def profiles_of(self, model: ModelConfig) -> dict[str, Slot]:
        """For each profile of a model the slot that it runs on."""
        return {
            name: self._choices[f"{model.sie_id}{PROFILE_SEPARATOR}{name}".lower()].slot
            for name in sorted(model.profiles)
        }

    def _add(self, model: ModelConfig) -> None:
        owners = weights_of(model)
        for owner in dict.fromkeys(owners.values()):
            sharing = [name for name, own in owners.items() if own == owner]
            slot = Slot(
                profile_id(model, owner),
                under(model, owner),
                max_batch_tokens=min(model.profiles[name].max_batch_tokens for name in sharing),
                aliases=tuple(profile_id(model, name) for name in sharing if name != owner),
            )
            self._slots.append(slot)
            for name in sharing:
                choice = Choice(profile_id(model, name), under(model, name), slot)
                self._choices[f"{model.sie_id}{PROFILE_SEPARATOR}{name}".lower()] = choice
                self._choices[choice.name.lower()] = choice


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
    )


def not_there(slot: Slot, now: float) -> Problem:
    """The refusal of a request whose model is not loaded: it may be, or it cannot."""
    failure = slot.failure
    if slot.state is State.FAILED and failure is not None:
        return Problem(
            ErrorCode.MODEL_LOAD_FAILED,
            f"model '{slot.name}' cannot be loaded: {failure.message}",
            details={
                "model": slot.name,
                "error_class": str(failure.error_class),
                "attempts": failure.attempts,
                "permanent": failure.permanent,
            },
        )
    if slot.state is State.UNLOADING:
        return making_room(slot.name)
    return Problem(
        ErrorCode.MODEL_LOADING,
        f"model '{slot.name}' is loading on this worker; try again",
        retry_after_s=loading_retry_after_s(now - slot.loading_since),
        details={"model": slot.name},
    )
