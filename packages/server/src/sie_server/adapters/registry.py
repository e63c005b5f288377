"""Adapter names and where their classes live. Nothing is imported until a model needs it."""

import importlib
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Final, cast

from sie_server.adapters.base import Adapter, LoadError, ModelSpec
from sie_server.core.lifecycle import ErrorClass

AdapterFactory = Callable[[ModelSpec], Adapter]

ADAPTERS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "colbert": "sie_server.adapters.colbert:ColbertAdapter",
        "cross_encoder": "sie_server.adapters.cross_encoder:CrossEncoderAdapter",
        "dense": "sie_server.adapters.dense:DenseAdapter",
        "hash": "sie_server.adapters.hash:HashAdapter",
        "sparse": "sie_server.adapters.sparse:SparseAdapter",
        "vision": "sie_server.adapters.vision:VisionAdapter",
    }
)


def find(name: str, adapters: Mapping[str, str] = ADAPTERS) -> AdapterFactory:
    """The class behind an adapter name.

    Raises:
        LoadError: DEPENDENCY when the name is unknown or its module needs a package that is not installed.
    """
    target = adapters.get(name)
    if target is None:
        raise LoadError(ErrorClass.DEPENDENCY, f"adapter '{name}' is unknown; known: {', '.join(sorted(adapters))}")
    module, _, attribute = target.partition(":")
    try:
        return cast("AdapterFactory", getattr(importlib.import_module(module), attribute))
    except ImportError as error:
        raise LoadError(
            ErrorClass.DEPENDENCY,
            f"adapter '{name}' needs the package '{error.name}', which is not installed; install sie-server[torch]",
        ) from error
