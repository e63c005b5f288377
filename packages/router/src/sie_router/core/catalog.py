"""Which models may be asked for, and in which bundles each can run. Knows no files and no workers."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final, Protocol

import msgspec
from msgspec.structs import replace

from sie_protocol.catalog import (
    DEFAULT_PROFILE,
    PROFILE_SEPARATOR,
    Catalog,
    ModelConfig,
    bundle_conflict,
    unknown_model,
)
from sie_protocol.errors import MAX_SHOWN, ErrorCode, Problem
from sie_protocol.hashing import bundle_config_hash
from sie_protocol.target import ModelRef

DEFAULT_BUNDLE: Final = "default"


class Servable(msgspec.Struct, frozen=True):
    """A model, or one profile of it, under its canonical id (`org/model`, `org/model:profile`).

    `key` is that id in lower case, `bundles` are lower case, preferred first. `under`: for a profile with a LoRA the
    key of the model that the LoRA goes on top of.
    """

    model_id: str
    key: str
    bundles: tuple[str, ...]
    under: str | None = None


class Models(Protocol):
    """What can be asked for."""

    def resolve(self, ref: ModelRef) -> Servable:
        """The model a caller named.

        Raises:
            Problem: MODEL_NOT_FOUND or BUNDLE_CONFLICT.
        """
        ...

    def unknown(self, name: str) -> Problem:
        """The refusal of a model that is not listed."""
        ...

    def listed(self) -> tuple[tuple[ModelConfig, tuple[str, ...]], ...]:
        """The catalogue's models with their bundles, sorted by id; empty without a catalogue."""
        ...

    def config_hash(self, bundle: str) -> str:
        """What workers of a bundle with the same catalogue report; empty where nobody knows."""
        ...


@dataclass(frozen=True, slots=True)
class AnyModel:
    """A router without a catalogue: every model exists, in the bundle the caller asks for."""

    def resolve(self, ref: ModelRef) -> Servable:
        """Take the caller's word."""
        return Servable(ref.name, ref.name.lower(), (ref.bundle or DEFAULT_BUNDLE,))

    def unknown(self, name: str) -> Problem:
        """As nothing is known, nothing is like it."""
        return unknown_model({}, name)

    def listed(self) -> tuple[tuple[ModelConfig, tuple[str, ...]], ...]:
        """Nothing is known in advance."""
        return ()

    def config_hash(self, bundle: str) -> str:  # noqa: ARG002 - the protocol's signature
        """Nobody knows."""
        return ""


@dataclass(frozen=True, slots=True)
class UnreadCatalog(AnyModel):
    """A router whose catalogue could not be read yet: it knows of no model whether it exists."""

    def resolve(self, ref: ModelRef) -> Servable:
        """Refuse, for now: starting a worker for what may be a typo would cost money."""
        name = ref.name[:MAX_SHOWN]
        raise Problem(
            ErrorCode.STORE_UNAVAILABLE,
            f"model '{name}' cannot be looked up, this router has not read its catalogue yet; its log says why",
        )


@dataclass(frozen=True, slots=True)
class KnownModels:
    """A router with a catalogue; only what it lists exists. Keys are names of models and bundles in lower case."""

    catalog: Catalog
    servable: Mapping[str, Servable]
    hashes: Mapping[str, str]

    def resolve(self, ref: ModelRef) -> Servable:
        """Look the model up, ignoring case."""
        found = self.servable.get(ref.name.lower())
        if found is None:
            raise self.unknown(ref.name)
        if ref.bundle is None:
            return found
        if ref.bundle not in found.bundles:
            raise bundle_conflict(found.model_id, ref.bundle, found.bundles)
        return replace(found, bundles=(ref.bundle,))

    def unknown(self, name: str) -> Problem:
        """The refusal of a name that nobody has."""
        return unknown_model({key: each for key, each in self.catalog.models.items() if key in self.servable}, name)

    def listed(self) -> tuple[tuple[ModelConfig, tuple[str, ...]], ...]:
        """Every model that some bundle can run."""
        models = sorted(self.catalog.models.items())
        return tuple((model, self.servable[key].bundles) for key, model in models if key in self.servable)

    def config_hash(self, bundle: str) -> str:
        """What the bundle's part of the catalogue hashes to."""
        return self.hashes.get(bundle.lower(), "")


def known_models(catalog: Catalog) -> KnownModels:
    """Index a catalogue once, so that a request costs one lookup. What no bundle can run does not exist."""
    servable: dict[str, Servable] = {}
    for name, published, adapters, under in _names(catalog):
        bundles = tuple(bundle.lower() for bundle in catalog.bundles_for(adapters))
        if bundles:
            servable[name.lower()] = Servable(published, published.lower(), bundles, under)
    hashes = {each.name.lower(): bundle_config_hash(catalog.models_of(each.name)) for each in catalog.bundles}
    return KnownModels(catalog, servable, hashes)


def _names(catalog: Catalog) -> Iterator[tuple[str, str, frozenset[str], str | None]]:
    """Every name a caller may use, the canonical one for it, the adapters of which a bundle needs one, and `under`."""
    for model in catalog.models.values():
        yield model.sie_id, model.sie_id, model.adapters, None
        for profile, config in model.profiles.items():
            name = f"{model.sie_id}{PROFILE_SEPARATOR}{profile}"
            published = model.sie_id if profile == DEFAULT_PROFILE else name
            has_lora = config.lora is not None and profile != DEFAULT_PROFILE
            yield name, published, frozenset({config.adapter}), model.sie_id.lower() if has_lora else None
