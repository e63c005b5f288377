"""Entities from a token classifier: names, places, personal data, whatever its own labels say.

Runs the architectures of `shared.architectures` with a head for each token.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from sie_protocol.arrays import Array
from sie_server.adapters.base import Capabilities, Input, LoadError, Outputs, Prepared
from sie_server.adapters.shared.adapter import ModelAdapter
from sie_server.adapters.shared.architectures import Encoder, read_architecture
from sie_server.adapters.shared.chunks import chunk_tokens
from sie_server.adapters.shared.classifier_heads import OF_TOKENS, Head, read_head
from sie_server.adapters.shared.loading import loading_onto, read_model
from sie_server.adapters.shared.token_reader import TokenReader
from sie_server.adapters.shared.torch_use import precision
from sie_server.core.lifecycle import ErrorClass


@dataclass(frozen=True, slots=True)
class Loaded:
    """A model that is ready; one call computes at most `limit` tokens."""

    reader: TokenReader
    encoder: Encoder
    head: Head
    limit: int

    @torch.inference_mode()
    def classify(self, sequences: list[Array]) -> Sequence[Array]:
        """Probabilities [tokens, classes] of each sequence of ids."""
        hidden, lengths = self.encoder.encode(sequences)
        probabilities = self.head.logits(hidden).softmax(1).cpu()
        return [each.numpy() for each in torch.split_with_sizes(probabilities, lengths)]


class TokenClassifierAdapter(ModelAdapter[Loaded]):
    """An encoder with a classifier of tokens; float32 on a CPU."""

    @property
    def capabilities(self) -> Capabilities:
        """Entities of texts; accelerators pad inside attention."""
        return Capabilities(outputs=frozenset({"entities"}), pads=self._loaded.pads)

    def load(self, device: str) -> None:
        """Find, read and check the model.

        Raises:
            LoadError: what is missing or wrong.
        """
        folder, config, tensors = read_model(self._spec.source)
        architecture = read_architecture(config)
        reader = TokenReader(folder, config, architecture.length(self._spec.max_sequence_length))
        with loading_onto(device):
            encoder = architecture.build(tensors, device, precision(self._spec.precision, device))
            head = read_head(tensors, config, architecture.width, device, OF_TOKENS)
        if head.labels != reader.classes:
            message = f"the weights have {head.labels} labels, config.json names {reader.classes}"
            raise LoadError(ErrorClass.UNKNOWN, message)
        self._loaded.fill(Loaded(reader, encoder, head, chunk_tokens(device)), device)

    def prepare(self, inputs: Sequence[Input], *, is_query: bool = False) -> list[Prepared]:  # noqa: ARG002 - read alike
        """Windows of token ids; no text is cut."""
        return self._loaded.parts().reader.prepare(inputs)

    def run(self, batch: Sequence[Prepared], threads: int) -> Outputs:
        """The entities of each text, by their start."""
        loaded = self._loaded.with_threads(threads)
        return {"entities": loaded.reader.entities(batch, loaded.classify, loaded.limit)}
