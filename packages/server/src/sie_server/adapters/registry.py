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
        "bge_m3": "sie_server.adapters.bge_m3:BgeM3Adapter",
        "colbert": "sie_server.adapters.colbert:ColbertAdapter",
        "colvision": "sie_server.adapters.colvision:ColVisionAdapter",
        "cross_encoder": "sie_server.adapters.cross_encoder:CrossEncoderAdapter",
        "dense": "sie_server.adapters.dense:DenseAdapter",
        "donut": "sie_server.adapters.donut:DonutAdapter",
        "florence2": "sie_server.adapters.florence2:Florence2Adapter",
        "gliclass": "sie_server.adapters.gliclass:GliclassAdapter",
        "gliner": "sie_server.adapters.gliner:GlinerAdapter",
        "gliner2": "sie_server.adapters.gliner2:Gliner2Adapter",
        "glirel": "sie_server.adapters.glirel:GlirelAdapter",
        "grounding_dino": "sie_server.adapters.grounding_dino:GroundingDinoAdapter",
        "hash": "sie_server.adapters.hash:HashAdapter",
        "instructed": "sie_server.adapters.instructed:InstructedAdapter",
        "judge": "sie_server.adapters.judge:JudgeAdapter",
        "nli": "sie_server.adapters.nli:NliAdapter",
        "onnx_token_classifier": "sie_server.adapters.onnx_token_classifier:OnnxTokenClassifierAdapter",
        "owlv2": "sie_server.adapters.owlv2:Owlv2Adapter",
        "sparse": "sie_server.adapters.sparse:SparseAdapter",
        "token_classifier": "sie_server.adapters.token_classifier:TokenClassifierAdapter",
        "vision": "sie_server.adapters.vision:VisionAdapter",
    }
)
# What a worker may be installed without, and the extra of sie-server that brings it.
EXTRAS: Final[Mapping[str, str]] = MappingProxyType({"onnxruntime": "onnx", "transformers": "transformers"})
DEFAULT_EXTRA: Final = "torch"
# The extras of the adapters that do not need just torch.
NEEDS: Final[Mapping[str, tuple[str, ...]]] = MappingProxyType({"hash": (), "onnx_token_classifier": ("onnx",)})


def needs(name: str) -> tuple[str, ...]:
    """The extras of sie-server without which an adapter cannot be imported."""
    return NEEDS.get(name, (DEFAULT_EXTRA,))


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
        raise missing_package(name, error) from error


def missing_package(name: str, error: ImportError) -> LoadError:
    """The refusal of a model whose adapter needs a package that is not installed."""
    extra = EXTRAS.get(error.name or "", DEFAULT_EXTRA)
    return LoadError(
        ErrorClass.DEPENDENCY,
        f"adapter '{name}' needs the package '{error.name}', which is not installed; install sie-server[{extra}]",
    )
