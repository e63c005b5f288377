"""From words and relations to one logit for each relation between each two entities: GLiREL (arXiv:2501.03172)."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

import torch

from sie_protocol.arrays import Array
from sie_server.adapters.shared.checkpoint import Checkpoint
from sie_server.adapters.shared.entity_pairs import pair_logits
from sie_server.adapters.shared.gliner_heads import Mlp, mlp
from sie_server.adapters.shared.glirel_config import MEAN, GlirelConfig
from sie_server.adapters.shared.torch_use import to_device

_PAIR: Final = "span_rep_layer.rel_rep_layer"


@dataclass(frozen=True, slots=True)
class GlirelHead:
    """All in float32. `ends` tell an entity by its first and last word; without them `entity` reads the mean of all."""

    ends: tuple[Mlp, Mlp] | None
    entity: Mlp
    pair: Mlp
    relation: Mlp

    def logits(self, words: torch.Tensor, entities: Array, relations: torch.Tensor) -> Iterator[torch.Tensor]:
        """[tails, relations] for each head in turn, among the tails the head itself, whose logits mean nothing.

        From words [words, width], first and last word [entities, 2] of each entity, and relations [relations, width].
        """
        return pair_logits(self.pair, self._vectors(words, entities), self.relation(relations))

    def _vectors(self, words: torch.Tensor, entities: Array) -> torch.Tensor:
        if self.ends is None:
            return self.entity(torch.stack([words[first : last + 1].mean(0) for first, last in entities.tolist()]))
        first, last = (words[to_device(each, words.device)] for each in entities.T)
        start, end = self.ends
        return self.entity(torch.cat((start(first), end(last)), 1).relu_())


def read_glirel_head(tensors: Mapping[str, torch.Tensor], config: GlirelConfig, device: str) -> GlirelHead:
    """The head of a checkpoint.

    Raises:
        LoadError: UNKNOWN naming a tensor that is missing or has another shape.
    """
    get, width = Checkpoint(tensors, str, device).get, config.width
    marker = f"{_PAIR}.span_marker"
    if config.entity == MEAN:
        ends, entity = None, mlp(get, f"{marker}.projection", width, width)
    else:
        ends = mlp(get, f"{marker}.project_start", width, width), mlp(get, f"{marker}.project_end", width, width)
        entity = mlp(get, f"{marker}.out_project", 2 * width, width)
    pair = mlp(get, f"{_PAIR}.out_project", 2 * width, width)
    return GlirelHead(ends, entity, pair, mlp(get, "prompt_rep_layer", width, width))
