"""What a worker says of its models: to callers, to routers. Values made of slots; changes nothing."""

from sie_protocol.catalog import DEFAULT_PROFILE, LoraConfig
from sie_protocol.errors import ErrorCode
from sie_protocol.items import ModelInfo
from sie_protocol.profiles import profile_id
from sie_protocol.status import MAX_FAILURE_CHARS, ModelFailure, ModelStatus
from sie_server.core.lifecycle import Failure, State
from sie_server.engine.slots import Choice, Slot, Slots


def model_info(slots: Slots, choice: Choice) -> ModelInfo:
    """A model, or one profile of it, under the name by which it is asked for."""
    model, slot = choice.model, choice.slot
    state, failure = _state_of(choice)
    kinds = (("text", model.inputs.text), ("image", model.inputs.image))
    return ModelInfo(
        name=choice.name,
        inputs=[kind for kind, is_read in kinds if is_read],
        outputs=list(model.outputs),
        dims=model.dims,
        loaded=state is State.LOADED,
        state=str(state),
        last_error=None if failure is None else _error(failure),
        max_sequence_length=model.max_sequence_length,
        memory_bytes=_held(slot),
        profiles={
            profile: {
                "is_default": profile == DEFAULT_PROFILE,
                "model": profile_id(model, profile),
                "weights": own.slot.name,
                **_lora(own),
            }
            for profile, own in slots.profiles_of(model).items()
        },
    )


def _state_of(choice: Choice) -> tuple[State, Failure | None]:
    """Of the weights, and once these are loaded of the LoRA on top of them."""
    slot = choice.slot
    if choice.lora is None or slot.state is not State.LOADED:
        return slot.state, slot.failure
    own = slot.loras.get(choice.lora)
    return (State.AVAILABLE, None) if own is None else (own.state, own.failure)


def _lora(choice: Choice) -> dict[str, object]:
    if choice.lora is None:
        return {}
    own = choice.slot.loras.get(choice.lora)
    size = own.size_bytes if own is not None and own.state is State.LOADED else 0
    return {"lora": {"hf_id": choice.lora.hf_id, "state": str(_state_of(choice)[0]), "memory_bytes": size}}


def model_statuses(slots: Slots) -> tuple[ModelStatus, ...]:
    """Every set of weights that is more than available, and every LoRA under the name of its profile."""
    rows = list[ModelStatus]()
    for slot in (slot for slot in slots if slot.state is not State.AVAILABLE):
        rows.append(
            ModelStatus(
                name=slot.name,
                aliases=slot.weights.aliases,
                state=str(slot.state),
                queue_depth=slot.depth,
                memory_bytes=_held(slot),
                failure=_failure(slot.state, slot.failure),
            )
        )
        rows += _lora_statuses(slot)
    return tuple(rows)


def _lora_statuses(slot: Slot) -> list[ModelStatus]:
    """The requests that run with a LoRA are counted with its model."""
    names: dict[LoraConfig, list[str]] = {}
    for name, lora in slot.weights.loras.items():
        if name != slot.name and lora in slot.loras and slot.state is State.LOADED:
            names.setdefault(lora, []).append(name)
    return [
        ModelStatus(
            name=own[0],
            aliases=tuple(own[1:]),
            state=str(slot.loras[lora].state),
            memory_bytes=slot.loras[lora].size_bytes if slot.loras[lora].state is State.LOADED else 0,
            failure=_failure(slot.loras[lora].state, slot.loras[lora].failure),
        )
        for lora, own in names.items()
    ]


def _held(slot: Slot) -> int:
    return slot.size_bytes if slot.state in (State.LOADED, State.UNLOADING) else 0


def _failure(state: State, failure: Failure | None) -> ModelFailure | None:
    """What routers are told of a load that failed."""
    if failure is None or state is not State.FAILED:
        return None
    return ModelFailure(
        error_class=str(failure.error_class),
        message=failure.message[:MAX_FAILURE_CHARS],
        attempts=failure.attempts,
        permanent=failure.permanent,
    )


def _error(failure: Failure) -> dict[str, object]:
    return {
        "code": str(ErrorCode.MODEL_LOAD_FAILED),
        "error_class": str(failure.error_class),
        "message": failure.message,
        "attempts": failure.attempts,
        "permanent": failure.permanent,
    }
