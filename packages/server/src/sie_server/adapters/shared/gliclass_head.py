"""From the states of a text and its labels to one logit a label."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

import torch

from sie_server.adapters.shared.checkpoint import Checkpoint, Get
from sie_server.adapters.shared.gliclass_config import MLP, WEIGHTED, GliclassConfig
from sie_server.adapters.shared.linear import Dense, activation_named

_MODEL: Final = "model."
_EPSILON: Final = 1e-8
# A text's vector [width] and its labels' [labels, width] in, a logit a label out.
Score = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


@dataclass(frozen=True, slots=True)
class GliclassHead:
    """Two projections of two layers each, and what compares a text with a label; all in float32."""

    text: tuple[Dense, Dense]
    labels: tuple[Dense, Dense]
    score: Score
    scale: torch.Tensor | None

    def logits(self, text: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Of vectors [width] and [labels, width]: [labels]."""
        of_text, of_labels = self._projected(self.text, text[None])[0], self._projected(self.labels, labels)
        found = self.score(of_text, of_labels)
        return found if self.scale is None else found * self.scale

    def _projected(self, layers: tuple[Dense, Dense], states: torch.Tensor) -> torch.Tensor:
        found = layers[1](layers[0](states.float()))
        return found if self.scale is None else found / (found.norm(dim=-1, keepdim=True) + _EPSILON)


def read_gliclass_head(tensors: Mapping[str, torch.Tensor], config: GliclassConfig, device: str) -> GliclassHead:
    """The head of a checkpoint.

    Raises:
        LoadError: DEPENDENCY for an unknown activation, UNKNOWN naming a tensor that is missing.
    """
    get = Checkpoint(tensors, lambda name: name.removeprefix(_MODEL), device).get
    activation = activation_named(config.activation)

    def projector(name: str) -> tuple[Dense, Dense]:
        first = _dense(get, f"{name}.linear_1")
        return Dense(first.weight, first.bias, activation), _dense(get, f"{name}.linear_2")

    return GliclassHead(
        projector("text_projector"),
        projector("classes_projector"),
        _read_score(get, config.scorer),
        get("logit_scale") if config.normalize else None,
    )


def _read_score(get: Get, scorer: str) -> Score:
    if scorer == WEIGHTED:
        return _weighted(get)
    return _mlp(get) if scorer == MLP else lambda text, labels: labels @ text


def _weighted(get: Get) -> Score:
    of_text, of_labels = _dense(get, "scorer.proj_text"), _dense(get, "scorer.proj_label")
    inner, outer = _dense(get, "scorer.out_mlp.0"), _dense(get, "scorer.out_mlp.3")

    def score(text: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        own, factor = of_text(text).expand(len(labels), -1).chunk(2, dim=1)
        theirs, other = of_labels(labels).chunk(2, dim=1)
        return outer(inner(torch.cat((own, theirs, factor * other), 1)).relu())[:, 0]

    return score


def _mlp(get: Get) -> Score:
    first, second, last = (_dense(get, f"scorer.mlp.{at}") for at in (0, 2, 4))

    def score(text: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        both = torch.cat((text.expand(len(labels), -1), labels), 1)
        return last(second(first(both).relu()).relu())[:, 0]

    return score


def _dense(get: Get, name: str) -> Dense:
    return Dense(get(f"{name}.weight"), get(f"{name}.bias"))
