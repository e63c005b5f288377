"""Rotary positions: each pair of components of a head is turned by an angle that grows with the position.

Checkpoints pair component i with component i + half. The two of a pair are put side by side when weights are read:
queries and keys are reordered alike, so scores stay what they are, and turning is one product of complex numbers.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import torch

from sie_server.adapters.base import LoadError
from sie_server.adapters.shared.checkpoint import expect
from sie_server.core.lifecycle import ErrorClass

AXES: Final = 3  # of Qwen2-VL: time, rows, columns


class Bands(NamedTuple):
    """Llama 3's way to stretch positions: pairs that turn slowly are slowed by a factor, fast ones left as they are.

    Slow is less than `low` turns in the `trained` positions, fast is more than `high`; between them it grows evenly.
    """

    factor: float
    low: float
    high: float
    trained: float


@dataclass(frozen=True, slots=True)
class Rope:
    """How far positions turn: the base of the angles, by how much all of them are smaller than it says, and bands.

    `sections`: of positions with several axes, how many of a head's pairs follow each, one axis after the other.
    """

    theta: float
    slower: float = 1.0
    bands: Bands | None = None
    sections: tuple[int, ...] = ()


def read_rope(
    config: Mapping[str, Any], old_key: str, default: float, head_width: int, kind: str | None = None
) -> Rope:
    """How positions turn, in one kind of layer if there are several.

    Newer configurations nest it under `rope_parameters`, older ones have the base at the top under `old_key`, and
    beside it `rope_scaling`. `ntk` is the fixed scaling of Alibaba's encoders: a longer base, and a bit slower. `mrope`
    scales nothing: positions have three axes, as Qwen2-VL counts time, rows and columns (`mrope_section`).

    Raises:
        LoadError: DEPENDENCY when positions are rescaled in a way that is not computed here.
    """
    nested = config.get("rope_parameters") or {}
    own = nested if kind is None else nested.get(kind) or {}
    theta = _positive(own.get("rope_theta", config.get(old_key, default)), "the base")
    sections: tuple[int, ...] = ()
    for scaling in (own, config.get("rope_scaling") or {}):
        name = scaling.get("rope_type", scaling.get("type", "default"))
        expect({"rope_type": name}, "rope_type", "default", "linear", "llama3", "mrope", "ntk")
        expect(scaling, "partial_rotary_factor", 1.0, default=1.0)
        expect(scaling, "mixed_b", None)
        sections = _sections(scaling.get("mrope_section"), head_width) or sections
        if name == "llama3":
            keys = "factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings"
            bands = Bands(*(_positive(scaling.get(key), f"the {key}") for key in keys))
            _positive(bands.high - bands.low, "the difference of the two frequencies")
            return Rope(theta, bands=bands)
        if name not in ("default", "mrope"):
            factor = _positive(scaling.get("factor"), "the factor")
            return Rope(theta, factor) if name == "linear" else Rope(theta * factor, factor ** (2 / head_width))
    return Rope(theta, sections=sections)


def _sections(sizes: Sequence[int] | None, head_width: int) -> tuple[int, ...]:
    if sizes is None:
        return ()
    if len(sizes) != AXES or sum(sizes) * 2 != head_width or min(sizes) < 1:
        message = (
            f"config.json has mrope_section {sizes!r}, which does not share out the pairs of a head of {head_width}"
        )
        raise LoadError(ErrorClass.UNKNOWN, message)
    return tuple(sizes)


def _positive(number: object, of_what: str) -> float:
    if not isinstance(number, int | float) or number <= 0:
        raise LoadError(ErrorClass.UNKNOWN, f"config.json has {number!r} for {of_what} of rotary positions")
    return float(number)


def side_by_side(rows: torch.Tensor, head_width: int) -> torch.Tensor:
    """Reorder the first axis [heads x head width] so that the two components of each pair are neighbours."""
    halves = rows.view(-1, 2, head_width // 2, *rows.shape[1:])
    return halves.transpose(1, 2).reshape(rows.shape)


def rotations(positions: torch.Tensor, rope: Rope, head_width: int) -> torch.Tensor:
    """The rotation of each pair at each position: complex [tokens, head width / 2].

    `positions` are [tokens], or with the sections of a rope [tokens, axes].
    """
    steps = torch.arange(0, head_width, 2, device=positions.device, dtype=torch.float32) / head_width
    by_pair = positions[:, None] if positions.dim() == 1 else positions[:, _axes(rope, positions.device)]
    angles = by_pair.float() * _slowed(1.0 / (rope.slower * rope.theta**steps), rope.bands)
    return torch.polar(torch.ones_like(angles), angles)


def _axes(rope: Rope, device: torch.device) -> torch.Tensor:
    """Which axis each pair follows: [head width / 2]."""
    return torch.tensor([axis for axis, size in enumerate(rope.sections) for _ in range(size)], device=device)


def _slowed(speeds: torch.Tensor, bands: Bands | None) -> torch.Tensor:
    if bands is None:
        return speeds
    count = speeds * (bands.trained / (2 * math.pi))
    kept = ((count - bands.low) / (bands.high - bands.low)).clamp(0, 1)
    return speeds * (kept + (1 - kept) / bands.factor)


def rotate(heads: torch.Tensor, by: torch.Tensor) -> None:
    """Rotate [tokens, heads, head width], pairs side by side, in place. `by` is of `rotations`."""
    wide = heads.float()  # the tensor itself when it is float32
    pairs = torch.view_as_complex(wide.view(*heads.shape[:2], -1, 2))
    pairs.mul_(by[:, None])
    if wide is not heads:
        heads.copy_(wide)
