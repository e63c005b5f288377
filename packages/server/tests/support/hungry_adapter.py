"""An adapter that asks torch for more memory than there is: in a batch with the text "huge", or when it loads."""

from collections.abc import Sequence

import numpy as np
import torch

from sie_server.adapters.base import Capabilities, Input, ModelSpec, Outputs, Prepared, single_texts

ADAPTERS = {"hungry": "hungry_adapter:HungryAdapter"}
TOO_MUCH = 1 << 47  # bytes: more than a process can address, so that the system refuses them


class HungryAdapter:
    """Vectors are the lengths of the texts."""

    capabilities = Capabilities(outputs=frozenset({"dense"}))

    def __init__(self, spec: ModelSpec) -> None:
        self._options = spec.options

    def load(self, device: str) -> None:
        if self._options.get("huge"):
            torch.empty(TOO_MUCH, dtype=torch.uint8, device=device)

    def prepare(self, inputs: Sequence[Input], *, is_query: bool = False) -> list[Prepared]:  # noqa: ARG002 - read alike
        return [Prepared(1, truncated=False, payload=text) for text in single_texts(inputs)]

    def run(self, batch: Sequence[Prepared], threads: int) -> Outputs:  # noqa: ARG002 - needs none
        texts = [each.payload for each in batch]
        if "huge" in texts:
            torch.empty(TOO_MUCH, dtype=torch.uint8)
        return {"dense": np.array([[len(text)] * 8 for text in texts], np.float32)}

    def unload(self) -> None:
        """Nothing is held."""
