"""What an accelerator computes needs nothing back from it, and little from the host, however many layers there are."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode

from sie_server.adapters.shared.architectures import read_architecture
from sie_server.adapters.shared.padding import Paddings
from sie_server.adapters.shared.weights import read_json, read_tensors
from tiny_families import Family, write_family

SEQUENCES = [np.arange(1, 1 + length) for length in (3, 1, 150, 40)]
LAYERS = 6
FAMILIES = {
    "xlm-roberta": Family("xlm-roberta", {"num_hidden_layers": LAYERS}),
    "mpnet": Family("mpnet", {"num_hidden_layers": LAYERS}),
    "deberta": Family("deberta-v2", {"num_hidden_layers": LAYERS}),
    "modernbert": Family("modernbert", {"num_hidden_layers": LAYERS, "local_attention": 8}),
    "qwen3": Family("qwen3", {"num_hidden_layers": LAYERS, "num_key_value_heads": 2, "head_dim": 8}, "last"),
}
EXPANDING = ("xlm-roberta", "modernbert")  # of which there are late-interaction models


class Copies(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts what is copied from the host to the device."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.count = 0

    def __torch_dispatch__(
        self, function: Any, _: Any, arguments: Sequence[Any] = (), named: Mapping[str, Any] | None = None
    ) -> Any:
        result = function(*arguments, **(named or {}))
        if function is torch.ops.aten._to_copy.default and arguments[0].device != result.device:
            self.count += 1
        return result


@given(st.lists(st.integers(1, 9), min_size=1, max_size=5), st.integers(1, 3))
def test_padding_is_zero_and_taking_it_out_again_leaves_what_was_there(lengths: list[int], heads: int) -> None:
    packed = torch.arange(1.0, 1 + heads * sum(lengths) * 2).view(heads, sum(lengths), 2)
    paddings = Paddings()
    padding = paddings.of(lengths, packed.device)
    rows = padding.spread(packed)
    assert rows.count_nonzero() == packed.numel()
    torch.testing.assert_close(padding.gather(rows), packed.transpose(0, 1))
    assert paddings.of(lengths, packed.device) is padding
    assert paddings.of(list(lengths), packed.device) is not padding  # another batch


@pytest.mark.parametrize(
    ("name", "expanded"), [*((name, False) for name in FAMILIES), *((name, True) for name in EXPANDING)]
)
def test_no_layer_waits_for_the_device(name: str, expanded: bool, tmp_path: Path) -> None:
    write_family(tmp_path, FAMILIES[name])
    architecture = read_architecture(read_json(tmp_path / "config.json"))
    # A meta tensor has a shape and no numbers: whatever needs one of them, as a wait for the device would, fails.
    encoder = architecture.build(read_tensors(tmp_path, allow_pickle=False), "meta", torch.float32)
    seen = [1, 1, 90, 40] if expanded else None
    with Copies() as copies:
        hidden, _ = encoder.encode(SEQUENCES, key_lengths=seen)
    assert hidden.shape == (sum(map(len, SEQUENCES)), architecture.width)
    assert copies.count <= LAYERS  # ids, positions, starts and the padding; one more in a layer would be too many
