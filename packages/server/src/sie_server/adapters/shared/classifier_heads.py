"""Classifiers on top of an encoder: of whole texts (or pairs), and of tokens. Knows nothing of what labels mean."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final

import torch
from torch.nn import functional

from sie_server.adapters.base import LoadError
from sie_server.adapters.shared.bert_weights import canonical
from sie_server.adapters.shared.checkpoint import Checkpoint
from sie_server.adapters.shared.linear import Activation, Dense, activation_named
from sie_server.core.lifecycle import ErrorClass


@dataclass(frozen=True, slots=True)
class Norm:
    """Layer normalisation; `weight` and `bias` are [width]."""

    weight: torch.Tensor
    bias: torch.Tensor | None
    eps: float

    def __call__(self, states: torch.Tensor) -> torch.Tensor:
        """[..., width] to the same."""
        return functional.layer_norm(states, self.weight.shape, self.weight, self.bias, self.eps)


@dataclass(frozen=True, slots=True)
class Head:
    """From hidden states to logits, in float32; the last of `layers` has a row for each label."""

    layers: tuple[Dense | Norm, ...]

    @property
    def labels(self) -> int:
        """How many there are."""
        return len(self.layers[-1].weight)

    def logits(self, states: torch.Tensor) -> torch.Tensor:
        """[texts or tokens, width] to [texts or tokens, labels]."""
        states = states.float()
        for layer in self.layers:
            states = layer(states)
        return states


@dataclass(frozen=True, slots=True)
class Part:
    """A dense layer of a head, and the normalisation behind it: the names of their tensors, which may lack biases.

    `activation_key` is the key of config.json that may name another activation.
    """

    name: str
    activation: str = "identity"
    activation_key: str | None = None
    norm: str | None = None
    needs_bias: bool = True


_LABELS: Final = Part("classifier")
_MODERN: Final = Part("head.dense", "gelu", "classifier_activation", norm="head.norm", needs_bias=False)
OF_TEXTS: Final[Mapping[str, tuple[Part, ...]]] = MappingProxyType(
    {
        "bart": (Part("classification_head.dense", "tanh"), Part("classification_head.out_proj")),
        "bert": (Part("pooler.dense", "tanh"), _LABELS),
        "deberta-v2": (Part("pooler.dense", "gelu", "pooler_hidden_act"), _LABELS),
        "distilbert": (Part("pre_classifier", "relu"), _LABELS),
        "gte": (Part("pooler.dense", "tanh"), _LABELS),
        "modernbert": (_MODERN, _LABELS),
        "mpnet": (Part("classifier.dense", "tanh"), Part("classifier.out_proj")),
        "new": (Part("pooler.dense", "tanh"), _LABELS),
        "roberta": (Part("classifier.dense", "tanh"), Part("classifier.out_proj")),
        "xlm-roberta": (Part("classifier.dense", "tanh"), Part("classifier.out_proj")),
    }
)
OF_TOKENS: Final[Mapping[str, tuple[Part, ...]]] = MappingProxyType(
    {name: (_MODERN, _LABELS) if name == "modernbert" else (_LABELS,) for name in OF_TEXTS if name != "bart"}
)


def read_head(
    tensors: Mapping[str, torch.Tensor],
    config: Mapping[str, Any],
    width: int,
    device: str,
    kinds: Mapping[str, tuple[Part, ...]] = OF_TEXTS,
) -> Head:
    """The head of a checkpoint: a sequence classifier's, or with `OF_TOKENS` a token classifier's.

    Raises:
        LoadError: DEPENDENCY when there is no such head for the model type, UNKNOWN naming a tensor that is missing.
    """
    parts = kinds.get(str(config.get("model_type")))
    if parts is None:
        message = f"the model has model_type {config.get('model_type')!r}; classifiers are read of {', '.join(kinds)}"
        raise LoadError(ErrorClass.DEPENDENCY, message)
    checkpoint = Checkpoint(tensors, canonical, device)
    layers: list[Dense | Norm] = []
    for part in parts:
        rows = () if part is parts[-1] else (width, width)
        weight = checkpoint.get(f"{part.name}.weight", *rows)
        get_bias = checkpoint.get if part.needs_bias else checkpoint.find
        bias = get_bias(f"{part.name}.bias", len(weight))
        layers.append(Dense(weight, bias, _activation(part, config)))
        if part.norm is not None:
            norm = checkpoint.get(f"{part.norm}.weight", width), checkpoint.find(f"{part.norm}.bias", width)
            layers.append(Norm(*norm, float(config.get("norm_eps", 1e-5))))
    return Head(tuple(layers))


def _activation(part: Part, config: Mapping[str, Any]) -> Activation:
    own = config.get(part.activation_key) if part.activation_key else None
    return activation_named(str(own or part.activation))
