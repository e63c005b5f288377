"""One vector per text from a decoder that sees both ways, and whose instruction is read but is no part of the vector.

Runs GritLM (arXiv:2402.09906) and NV-Embed (arXiv:2405.17428), which has latent attention before the mean.
Options: `query_prompt_end` and `doc_prompt_end` are what the prompt of a query or a document ends with: tokens up to
there are left out of the mean. `start_token_counts`: is the first token one of them, as in GritLM; NV-Embed leaves out
as many tokens as the prompt has, but counts from the start token, so that the last one of the prompt stays in.
Also `normalize`, `end_token`.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final, NamedTuple

import torch

from sie_protocol.arrays import Array
from sie_server.adapters.base import Capabilities, Input, ModelSpec, Outputs, Prepared, single_texts
from sie_server.adapters.shared.adapter import LoraAdapter
from sie_server.adapters.shared.architectures import Encoder, read_architecture
from sie_server.adapters.shared.checkpoint import expect
from sie_server.adapters.shared.latent import LatentAttention, read_latent_attention
from sie_server.adapters.shared.loading import check_dims, loading_onto, read_model
from sie_server.adapters.shared.lora import loras_of
from sie_server.adapters.shared.pooling import normalized
from sie_server.adapters.shared.tokenize import TextTokenizer
from sie_server.adapters.shared.torch_use import precision

PROMPTS_KEPT: Final = 256
BODY: Final = "embedding_model."
# NV-Embed's configuration nests that of its body, and leaves out what is the default of transformers' MistralConfig.
MISTRAL: Final[Mapping[str, Any]] = {
    "model_type": "mistral",
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "max_position_embeddings": 131072,
}


class Read(NamedTuple):
    """The payload of an input: its token ids, and how many of the first ones are no part of the mean."""

    ids: Array
    unpooled: int


@dataclass(frozen=True, slots=True)
class Loaded:
    """A model in memory; `prompt_tokens` tells how many tokens a prompt has, without special ones."""

    tokenizer: TextTokenizer
    encoder: Encoder
    latent: LatentAttention | None
    prompt_tokens: Callable[[str], int]


class InstructedAdapter(LoraAdapter[Loaded]):
    """A bidirectional Mistral whose vectors leave out the instruction; float32 on a CPU."""

    def __init__(self, spec: ModelSpec) -> None:
        super().__init__(spec)
        options = spec.options
        self._ends = {True: str(options.get("query_prompt_end", "")), False: str(options.get("doc_prompt_end", ""))}
        self._start = 1 if options.get("start_token_counts", True) else 0
        self._normalize = bool(options.get("normalize", True))

    @property
    def capabilities(self) -> Capabilities:
        """Dense vectors; accelerators pad inside attention."""
        return Capabilities(outputs=frozenset({"dense"}), pads=self._loaded.pads)

    def load(self, device: str) -> None:
        """Find, read and check the model.

        Raises:
            LoadError: what is missing or wrong.
        """
        folder, config, tensors = read_model(self._spec.source)
        expect(config, "model_type", "mistral", "nvembed")
        is_nested = config["model_type"] == "nvembed"
        body = {**MISTRAL, **(config.get("text_config") or {}), "model_type": "mistral"} if is_nested else config
        # The published code of both hides nothing but padding from a token, whatever window the configuration has.
        architecture = read_architecture({**body, "is_causal": False, "sliding_window": None, "layer_types": None})
        dtype = precision(self._spec.precision, device)
        own = {name.removeprefix(BODY): tensor for name, tensor in tensors.items()} if is_nested else tensors
        with loading_onto(device):
            encoder = architecture.build(own, device, dtype)
            latent = read_latent_attention(tensors, config, architecture.width, device, dtype)
        check_dims(self._spec, "dense", architecture.width)
        length = architecture.length(self._spec.max_sequence_length)
        tokenizer = TextTokenizer(folder, length, lower_case=False, end_token=self._spec.options.get("end_token"))
        counted = lru_cache(maxsize=PROMPTS_KEPT)(lambda prompt: len(tokenizer.plain_ids(prompt)))
        self._loaded.fill(Loaded(tokenizer, encoder, latent, counted), device)

    def prepare(self, inputs: Sequence[Input], *, is_query: bool = False) -> list[Prepared]:
        """Token ids, cut at the model's length, and where the prompt ends."""
        texts, loaded = single_texts(inputs), self._loaded.parts()
        return [
            Prepared(each.tokens, each.truncated, Read(each.payload, self._unpooled(loaded, text, is_query=is_query)))
            for text, each in zip(texts, loaded.tokenizer.prepare(texts), strict=True)
        ]

    def texts_of(self, tokens: Sequence[Sequence[int]]) -> list[str]:
        """The text of each list of token ids."""
        return self._loaded.parts().tokenizer.texts_of(tokens)

    def tokens_of(self, given: Input, *, is_query: bool = False) -> int:  # noqa: ARG002 - read alike
        """How many tokens a text has before it is cut."""
        return self._loaded.parts().tokenizer.count(given)

    @torch.inference_mode()
    def run(self, batch: Sequence[Prepared], threads: int) -> Outputs:
        """Dense float32 vectors of shape [batch, dims]."""
        loaded, inputs = self._loaded.with_threads(threads), [each.payload for each in batch]
        hidden, lengths = loaded.encoder.encode([each.ids for each in inputs], loras=loras_of(batch))
        if loaded.latent is not None:
            hidden = loaded.latent(hidden)
        states = torch.split_with_sizes(hidden.float(), lengths)
        vectors = torch.stack([_mean(own, each.unpooled) for own, each in zip(states, inputs, strict=True)])
        return {"dense": (normalized(vectors) if self._normalize else vectors).cpu().numpy()}

    def _unpooled(self, loaded: Loaded, text: str, *, is_query: bool) -> int:
        end = self._ends[is_query]
        front, found, _ = text.partition(end) if end else ("", "", "")
        return loaded.prompt_tokens(front + found) + self._start if found else 0


def _mean(states: torch.Tensor, unpooled: int) -> torch.Tensor:
    """The mean of a text's tokens; of all tokens, when there is nothing behind the prompt."""
    return (states[unpooled:] if unpooled < len(states) else states).mean(0)
