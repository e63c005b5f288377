"""What has to be installed to run some models of the catalogue, for who builds images or environments."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib import metadata
from typing import Any

from sie_protocol.catalog import Catalog, ModelConfig
from sie_protocol.names import suggestion
from sie_protocol.versions import VERSION
from sie_server.adapters.registry import ADAPTERS, needs
from sie_server.catalog_files import select

DISTRIBUTION = "sie-server"


@dataclass(frozen=True, slots=True)
class Needed:
    """What models need: their adapters, the extras of sie-server that these need, and PEP 508 requirements."""

    models: tuple[str, ...]
    adapters: Mapping[str, tuple[str, ...]]
    requirements: tuple[str, ...]

    def as_json(self) -> dict[str, Any]:
        """The form of `resolve-deps --json`."""
        return {
            "models": list(self.models),
            "adapters": {name: list(extras) for name, extras in self.adapters.items()},
            "requirements": list(self.requirements),
        }


def chosen(catalog: Catalog, bundle: str, names: Iterable[str]) -> list[ModelConfig]:
    """The named models of whatever bundle, or all models of a bundle when none is named.

    Raises:
        ValueError: there is no such bundle or model.
    """
    found = {name: catalog.find(name) for name in names}
    for name, model in found.items():
        if model is None:
            meant = suggestion(name, (each.sie_id for each in catalog.models.values()))
            raise ValueError(f"the catalogue has no model '{name}'{meant}")
    named = [model for model in found.values() if model is not None]
    return named or list(select(catalog, bundle, ()).values())


def resolve(models: Iterable[ModelConfig], declared: Iterable[str] | None = None) -> Needed:
    """What some models need; `declared` are the requirements of sie-server, by default those of the installed one.

    Raises:
        ValueError: a model's adapter is none of this version.
    """
    ordered = sorted({model.sie_id: model for model in models}.values(), key=lambda model: model.sie_id.lower())
    for model in ordered:
        unknown = sorted(model.adapters - set(ADAPTERS))
        if unknown:
            known = ", ".join(sorted(ADAPTERS))
            raise ValueError(f"model '{model.sie_id}' has adapter {', '.join(unknown)}; this version has: {known}")
    adapters = {name: needs(name) for name in sorted({name for model in ordered for name in model.adapters})}
    extras = sorted({extra for own in adapters.values() for extra in own})
    marked = f"[{','.join(extras)}]" if extras else ""
    lines = (metadata.requires(DISTRIBUTION) or []) if declared is None else declared
    brought = [required for extra in extras for required in brought_by(extra, lines)]
    return Needed(tuple(model.sie_id for model in ordered), adapters, (f"{DISTRIBUTION}{marked}=={VERSION}", *brought))


def brought_by(extra: str, declared: Iterable[str]) -> list[str]:
    """What an extra adds to the requirements of a distribution, without the marker that says so."""
    parts = ((requirement, marker) for requirement, _, marker in (line.partition(";") for line in declared))
    wanted = {f"extra=='{extra}'", f'extra=="{extra}"'}
    return [requirement.strip() for requirement, marker in parts if marker.replace(" ", "") in wanted]
