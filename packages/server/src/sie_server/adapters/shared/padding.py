"""A packed batch as rows of one length, for devices on which a call costs more than work on padding.

Where tokens lie is worked out on the host and copied once for all layers of a batch, so that no layer waits for the
device.
"""

from dataclasses import dataclass

import numpy as np
import torch

from sie_server.adapters.shared.torch_use import to_device


@dataclass(frozen=True, slots=True)
class Padding:
    """Where the tokens of a packed batch lie in a padded one.

    `real` [sequences, longest] is false for padding, `visible` for what no token looks at as well; `places` [tokens].
    """

    lengths: list[int]
    key_lengths: list[int] | None
    real: torch.Tensor
    visible: torch.Tensor
    places: torch.Tensor

    def spread(self, part: torch.Tensor) -> torch.Tensor:
        """[heads, tokens, head width] to [sequences, heads, longest, head width]; padding is 0."""
        heads, _, width = part.shape
        copy = part.new_zeros(self.real.numel(), heads, width)
        copy.index_copy_(0, self.places, part.transpose(0, 1))
        return copy.view(*self.real.shape, heads, width).transpose(1, 2)

    def gather(self, context: torch.Tensor) -> torch.Tensor:
        """[sequences, heads, longest, head width] back to [tokens, heads, head width]."""
        return context.transpose(1, 2).flatten(0, 1)[self.places]


class Paddings:
    """The padding of the batch at hand: made for its first layer, and the same for the others."""

    def __init__(self) -> None:
        self._last: Padding | None = None  # replaced as a whole: a thread that sees another's makes its own

    def of(self, lengths: list[int], device: torch.device, key_lengths: list[int] | None = None) -> Padding:
        """For sequences of these lengths; with `key_lengths`, only so many tokens of each are looked at.

        Layers of one batch give the same lists, by which it is known again.
        """
        last = self._last
        if (
            last is not None
            and last.lengths is lengths
            and last.key_lengths is key_lengths
            and last.real.device == device
        ):
            return last
        columns = np.arange(max(lengths))
        real = columns < np.array(lengths)[:, None]
        places = to_device(np.flatnonzero(real), device)
        on_device = to_device(real, device)
        visible = on_device if key_lengths is None else to_device(columns < np.array(key_lengths)[:, None], device)
        self._last = Padding(lengths, key_lengths, on_device, visible, places)
        return self._last
