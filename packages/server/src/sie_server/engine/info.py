"""What a worker says of its models: to callers, to routers. Values made of slots; changes nothing."""

from sie_protocol.catalog import DEFAULT_PROFILE
from sie_protocol.errors import ErrorCode
from sie_protocol.items import ModelInfo
from sie_protocol.status import MAX_FAILURE_CHARS, ModelFailure, ModelStatus
from sie_server.core.lifecycle import Failure, State
from sie_server.core.profiles import profile_id
from sie_server.engine.slots import Choice, Slot, Slots


def model_info(slots: Slots, choice: Choice) -> ModelInfo:
    """A model, or one profile of it, under the name by which it is asked for."""
    model, slot = choice.model, choice.slot
    kinds = (("text", model.inputs.text), ("image", model.inputs.image))
    return ModelInfo(
        name=choice.name,
        inputs=[kind for kind, is_read in kinds if is_read],
        outputs=list(model.outputs),
        dims=model.dims,
        loaded=slot.state is State.LOADED,
        state=str(slot.state),
        last_error=None if slot.failure is None else _error(slot.failure),
        max_sequence_length=model.max_sequence_length,
        memory_bytes=_held(slot),
        profiles={
            profile: {
                "is_default": profile == DEFAULT_PROFILE,
                "model": profile_id(model, profile),
                "weights": own.name,
            }
            for profile, own in slots.profiles_of(model).items()
        },
    )


def model_statuses(slots: Slots) -> tuple[ModelStatus, ...]:
    """Every set of weights that is more than available."""
    return tuple(
        ModelStatus(
            name=slot.name,
            aliases=slot.weights.aliases,
            state=str(slot.state),
            queue_depth=slot.depth,
            memory_bytes=_held(slot),
            failure=_told(slot.failure) if slot.state is State.FAILED else None,
        )
        for slot in slots
        if slot.state is not State.AVAILABLE
    )


def _held(slot: Slot) -> int:
    return slot.size_bytes if slot.state in (State.LOADED, State.UNLOADING) else 0


def _told(failure: Failure | None) -> ModelFailure | None:
    return (
        None
        if failure is None
        else ModelFailure(
            error_class=str(failure.error_class),
            message=failure.message[:MAX_FAILURE_CHARS],
            attempts=failure.attempts,
            permanent=failure.permanent,
        )
    )


def _error(failure: Failure) -> dict[str, object]:
    return {
        "code": str(ErrorCode.MODEL_LOAD_FAILED),
        "error_class": str(failure.error_class),
        "message": failure.message,
        "attempts": failure.attempts,
        "permanent": failure.permanent,
    }
