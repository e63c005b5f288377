"""What a profile makes of a model: the name by which callers ask for it, and what they get. Pure."""

from collections.abc import Mapping
from typing import Annotated, Any, Final

import msgspec
from msgspec import Meta

from sie_protocol.catalog import DEFAULT_PROFILE, PROFILE_SEPARATOR, EncodeTask, ModelConfig, VectorTask

MUVERA: Final = "muvera"  # the option
MAX_SIMHASH_BITS: Final = 8  # tables of partitions by partitions stay small
MAX_DIMS: Final = 262_144  # of an encoding before its final projection: 1 MiB


def profile_id(model: ModelConfig, profile: str) -> str:
    """The name by which callers ask for a profile of a model."""
    return model.sie_id if profile == DEFAULT_PROFILE else f"{model.sie_id}{PROFILE_SEPARATOR}{profile}"


def under(model: ModelConfig, profile: str) -> ModelConfig:
    """The model with this profile as its default; its outputs are those of the weights."""
    return msgspec.structs.replace(model, profiles={**model.profiles, DEFAULT_PROFILE: model.profiles[profile]})


def offered(model: ModelConfig, profile: str) -> ModelConfig:
    """The model as callers of this profile see it: their default is the profile, with the outputs it makes.

    Raises:
        ValueError: it declares an output that cannot be made; the message names it.
    """
    own = under(model, profile)
    try:
        muvera = muvera_of(model, model.profiles[profile].adapter_options)
    except ValueError as error:
        raise ValueError(f"profile '{profile}' of model '{model.sie_id}': {error}") from error
    if muvera is None:
        return own
    encode = msgspec.structs.replace(own.tasks.encode or EncodeTask(), dense=VectorTask(muvera.dims))
    return msgspec.structs.replace(own, tasks=msgspec.structs.replace(own.tasks, encode=encode))


class Muvera(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a profile says: so many repetitions of 2^`simhash_bits` partitions with `projection_dims` components each.

    Tokens are not projected where `projection_dims` is the number of their components. `final_dims` shortens the whole
    encoding by a count sketch. Two encodings can be compared only if all of this and the model are the same.
    """

    repetitions: Annotated[int, Meta(ge=1, le=1024)]
    simhash_bits: Annotated[int, Meta(ge=1, le=MAX_SIMHASH_BITS)]
    projection_dims: Annotated[int, Meta(ge=1)]
    seed: Annotated[int, Meta(ge=0, le=(1 << 32) - 1)]
    final_dims: Annotated[int, Meta(ge=1)] | None = None

    @property
    def partitions(self) -> int:
        """Of one repetition."""
        return 1 << self.simhash_bits

    @property
    def whole_dims(self) -> int:
        """Components before the final projection."""
        return self.repetitions * self.partitions * self.projection_dims

    @property
    def dims(self) -> int:
        """Components of an encoding."""
        return self.final_dims or self.whole_dims


def muvera_of(model: ModelConfig, options: Mapping[str, Any]) -> Muvera | None:
    """The fixed-dimensional encoding that a profile's options declare, if any.

    Raises:
        ValueError: it cannot be made of the model's token vectors, or a key or value is wrong; the message says which.
    """
    raw = options.get(MUVERA)
    if raw is None:
        return None
    width = model.dims.get("multivector")
    if width is None:
        raise ValueError(f"{MUVERA}: model '{model.sie_id}' has no output multivector to make an encoding of")
    try:
        found = msgspec.convert(raw, Muvera)
    except msgspec.ValidationError as error:
        raise ValueError(f"{MUVERA}: {error}") from error
    if found.projection_dims > width:
        raise ValueError(f"{MUVERA}: projection_dims is {found.projection_dims}, token vectors have {width} components")
    if found.whole_dims > MAX_DIMS:
        raise ValueError(f"{MUVERA}: the encoding has {found.whole_dims} components, the limit is {MAX_DIMS}")
    if found.dims > found.whole_dims:
        raise ValueError(f"{MUVERA}: final_dims is {found.dims}, but there are only {found.whole_dims} components")
    return found
