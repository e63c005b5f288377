"""One vector per text: from every architecture of `shared.architectures`.

Options: `pooling`, `normalize`, `end_token`, and `is_causal`, which beats the same key of a decoder's configuration.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch

from sie_server.adapters.base import Capabilities, Input, Outputs, Prepared, single_texts
from sie_server.adapters.shared.adapter import LoraAdapter
from sie_server.adapters.shared.architectures import Encoder, read_architecture
from sie_server.adapters.shared.loading import check_dims, loading_onto, read_model
from sie_server.adapters.shared.lora import Lora, loras_of
from sie_server.adapters.shared.pooling import normalized, pool
from sie_server.adapters.shared.projection import Chain, linked, read_dense
from sie_server.adapters.shared.sentence_transformers_files import Layout, read_layout
from sie_server.adapters.shared.task_loras import read_task_loras
from sie_server.adapters.shared.tokenize import TextTokenizer
from sie_server.adapters.shared.torch_use import precision


@dataclass(frozen=True, slots=True)
class Loaded:
    """A model in memory. `chain` are the dense layers behind the pooling, `tasks` the LoRAs inside the weights.

    Both are mostly none.
    """

    tokenizer: TextTokenizer
    encoder: Encoder
    layout: Layout
    chain: Chain
    tasks: Mapping[str, Lora]


class DenseAdapter(LoraAdapter[Loaded]):
    """An encoder with pooling; float32 on a CPU."""

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
        architecture = read_architecture({**config, **self._causal()})
        layout = read_layout(folder, self._spec.options)
        length = architecture.length(self._spec.max_sequence_length or layout.max_length)
        tokenizer = TextTokenizer(folder, length, lower_case=layout.lower_case, end_token=layout.end_token)
        layers = [read_dense(path, allow_pickle=self._spec.source.allow_pickle) for path in layout.dense]
        chain = linked(layers, architecture.width, device, torch.float32)
        check_dims(self._spec, "dense", len(chain[-1].weight) if chain else architecture.width)
        with loading_onto(device):
            encoder = architecture.build(tensors, device, precision(self._spec.precision, device))
        tasks = read_task_loras(self._spec.tasks, folder, config, tensors, encoder.targets)
        self._loaded.fill(Loaded(tokenizer, encoder, layout, chain, tasks), device)

    def prepare(self, inputs: Sequence[Input], *, is_query: bool = False) -> list[Prepared]:  # noqa: ARG002 - read alike
        """Token ids, cut at the model's length."""
        return self._loaded.parts().tokenizer.prepare(single_texts(inputs))

    def texts_of(self, tokens: Sequence[Sequence[int]]) -> list[str]:
        """The text of each list of token ids."""
        return self._loaded.parts().tokenizer.texts_of(tokens)

    def tokens_of(self, given: Input, *, is_query: bool = False) -> int:  # noqa: ARG002 - read alike
        """How many tokens a text has before it is cut."""
        return self._loaded.parts().tokenizer.count(given)

    @torch.inference_mode()
    def run(self, batch: Sequence[Prepared], threads: int) -> Outputs:
        """Dense float32 vectors of shape [batch, dims]."""
        loaded = self._loaded.with_threads(threads)
        pooling = loaded.layout.pooling
        ids = [each.payload for each in batch]
        hidden, lengths = loaded.encoder.encode(ids, first_only=pooling == "cls", loras=loras_of(batch))
        vectors = pool(hidden, lengths, pooling).float()
        for layer in loaded.chain:
            vectors = layer(vectors)
        return {"dense": (normalized(vectors) if loaded.layout.normalize else vectors).cpu().numpy()}

    def lora_of_task(self, task: str) -> Lora:
        """The LoRA for a task that the weights have inside."""
        return self._loaded.parts().tasks[task]

    def _causal(self) -> dict[str, bool]:
        """Whether a decoder's tokens see only what is before them, if the catalogue says so."""
        options = self._spec.options
        return {"is_causal": bool(options["is_causal"])} if "is_causal" in options else {}
