"""From a form's markers to what pieces of a text are compared with, and to classes: GLiNER2 (arXiv:2507.18546).

Models unroll a recurrent layer once for each expected instance of a form; each step knows those before it. Entities are
read off the first instance alone: one step is enough for them, if there is any instance at all.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final

import torch
from torch import nn

from sie_server.adapters.shared.checkpoint import Checkpoint, Get
from sie_server.adapters.shared.gliner2_config import PLAIN, Gliner2Config
from sie_server.adapters.shared.gliner_heads import Linear, Mlp, SpanHead, linear, read_span_head
from sie_server.adapters.shared.linear import identity

COUNTS: Final = 20  # instances that are told apart, none among them
_INNER: Final = 128  # width, heads and layers of the small transformer between labels
_HEADS: Final = 4
_LAYERS: Final = 2


@dataclass(frozen=True, slots=True)
class Steps:
    """A gated recurrent unit that starts with the labels; `places` [COUNTS, width] are what it reads, step by step."""

    places: torch.Tensor
    weights: tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]

    def __call__(self, labels: torch.Tensor, count: int) -> Iterator[torch.Tensor]:
        """So many times [labels, width] of [labels, width]."""
        state = labels
        for place in self.places[:count]:
            state = torch.gru_cell(place.expand_as(labels), state, *self.weights)
            yield state


@dataclass(frozen=True, slots=True)
class Between:
    """A small transformer in which the labels of a form see each other."""

    inner: Linear
    layers: nn.TransformerEncoder
    outer: tuple[Linear, Linear, Linear]

    def __call__(self, labels: torch.Tensor) -> torch.Tensor:
        """[labels, width] in and out."""
        first, second, last = self.outer
        both = torch.cat((self.layers(self.inner(labels)[None])[0], labels), 1)
        return last(second(first(both).relu_()).relu_())


@dataclass(frozen=True, slots=True)
class Gliner2Head:
    """All in float32."""

    spans: SpanHead
    classes: Mlp
    counts: Mlp
    steps: Steps
    joined: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]

    def queries(self, labels: torch.Tensor, count: int) -> torch.Tensor:
        """What a piece with a label must be like, in each of so many instances of a form; [count, labels, width]."""
        return torch.stack([self.joined(state, labels) for state in self.steps(labels, count)])

    def count(self, name: torch.Tensor) -> int:
        """How many instances the form has, told by the marker of its name [width]."""
        return int(self.counts(name).argmax())


def read_gliner2_head(
    tensors: Mapping[str, torch.Tensor], config: Gliner2Config, width: int, device: str
) -> Gliner2Head:
    """The head of a checkpoint.

    Raises:
        LoadError: UNKNOWN naming a tensor that is missing or has another shape.
    """
    get = Checkpoint(tensors, str, device).get

    def scores(name: str, outputs: int) -> Mlp:
        return Mlp(linear(get, f"{name}.0", width, 2 * width), linear(get, f"{name}.2", 2 * width, outputs))

    gru = "count_embed.gru"
    steps = Steps(
        get("count_embed.pos_embedding.weight", COUNTS, width),
        (
            get(f"{gru}.weight_ih_l0", 3 * width, width),
            get(f"{gru}.weight_hh_l0", 3 * width, width),
            get(f"{gru}.bias_ih_l0", 3 * width),
            get(f"{gru}.bias_hh_l0", 3 * width),
        ),
    )
    return Gliner2Head(
        read_span_head(get, "span_rep.span_rep_layer", width, identity, config.max_width),
        scores("classifier", 1),
        scores("count_pred", COUNTS),
        steps,
        _read_joined(get, config, width, device),
    )


def _read_joined(
    get: Get, config: Gliner2Config, width: int, device: str
) -> Callable[[torch.Tensor, torch.Tensor], torch.Tensor]:
    """What makes one of labels after the step and before it."""
    if config.counting == PLAIN:
        prefix = "count_embed.projector"
        project = Mlp(linear(get, f"{prefix}.0", 2 * width, 4 * width), linear(get, f"{prefix}.2", 4 * width, width))
        return lambda after, before: project(torch.cat((after, before), 1))
    prefix = "count_embed.transformer"
    layer = nn.TransformerEncoderLayer(_INNER, _HEADS, 2 * _INNER, batch_first=True, device=device)
    layers = nn.TransformerEncoder(layer, _LAYERS, enable_nested_tensor=False)
    layers.load_state_dict(
        {name: get(f"{prefix}.transformer.{name}", *old.shape) for name, old in layers.state_dict().items()}
    )
    between = Between(
        linear(get, f"{prefix}.in_projector", width, _INNER),
        layers.eval().requires_grad_(requires_grad=False),
        (
            linear(get, f"{prefix}.out_projector.0", _INNER + width, width),
            linear(get, f"{prefix}.out_projector.2", width, width),
            linear(get, f"{prefix}.out_projector.4", width, width),
        ),
    )
    return lambda after, before: between(after + before)
