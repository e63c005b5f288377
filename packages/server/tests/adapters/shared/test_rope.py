import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sie_server.adapters.base import LoadError
from sie_server.adapters.shared.rope import Rope, read_rope, rotate, rotations, side_by_side


def rotated_halves(heads: torch.Tensor, positions: torch.Tensor, theta: float) -> torch.Tensor:
    """By the book: component i turns with component i + half."""
    width = heads.shape[-1]
    angles = positions[:, None].double() * theta ** (-torch.arange(0, width, 2).double() / width)
    cos, sin = angles.cos()[:, None], angles.sin()[:, None]
    left, right = heads.double().chunk(2, dim=-1)
    return torch.cat((left * cos - right * sin, right * cos + left * sin), -1)


@given(st.lists(st.integers(0, 300), min_size=1, max_size=8), st.sampled_from([2, 6, 16]), st.integers(0, 2**31))
def test_turning_neighbours_is_turning_halves(positions: list[int], width: int, seed: int) -> None:
    at = torch.tensor(positions)
    heads = torch.randn(len(at), 3, width, generator=torch.Generator().manual_seed(seed))
    reorder = side_by_side(torch.arange(width), width)
    for dtype, error in ((torch.float32, 1e-4), (torch.bfloat16, 5e-2)):
        within = torch.zeros(len(at), 5, width, dtype=dtype)  # heads are a part of a wider row, as they are in use
        within[:, :3] = heads[..., reorder].to(dtype)
        rotate(within[:, :3], rotations(at, Rope(10_000.0), width))
        expected = rotated_halves(heads, at, 10_000.0)[..., reorder]
        torch.testing.assert_close(within[:, :3].double(), expected, atol=error, rtol=error)
        assert not within[:, 3:].any()


@pytest.mark.parametrize(
    ("config", "kind", "theta"),
    [
        ({}, None, 7.0),
        ({"rope_theta": 5.0}, None, 5.0),
        ({"rope_theta": 5.0, "rope_scaling": None}, None, 5.0),
        ({"rope_parameters": {"rope_type": "default", "rope_theta": 3.0}}, None, 3.0),
        ({"rope_parameters": {"near": {"rope_theta": 3.0}, "far": {"rope_theta": 4.0}}}, "far", 4.0),
        ({"rope_parameters": {"near": {"rope_theta": 3.0}}}, "far", 7.0),
    ],
)
def test_both_layouts_of_a_configuration_are_read(config: dict[str, object], kind: str | None, theta: float) -> None:
    assert read_rope(config, "rope_theta", 7.0, 8, kind) == Rope(theta)


@pytest.mark.parametrize(
    ("config", "rope"),
    [
        ({"rope_parameters": {"rope_type": "linear", "rope_theta": 3.0, "factor": 4.0}}, Rope(3.0, 4.0)),
        ({"rope_theta": 3.0, "rope_scaling": {"type": "linear", "factor": 4.0}}, Rope(3.0, 4.0)),
        ({"rope_theta": 3.0, "rope_scaling": {"type": "ntk", "factor": 16.0}}, Rope(48.0, 2.0)),
    ],
)
def test_rescaled_positions_turn_slower(config: dict[str, object], rope: Rope) -> None:
    assert read_rope(config, "rope_theta", 7.0, 8) == rope
    at = torch.arange(5)
    torch.testing.assert_close(rotations(at, rope, 8).angle()[:, 0], at / rope.slower)


@given(st.lists(st.integers(0, 300), min_size=1, max_size=8))
def test_positions_that_are_alike_on_every_axis_turn_as_those_with_one(positions: list[int]) -> None:
    at, rope = torch.tensor(positions), Rope(10_000.0, sections=(1, 4, 3))
    torch.testing.assert_close(rotations(at[:, None].expand(-1, 3), rope, 16), rotations(at, rope, 16))


def test_each_pair_follows_the_axis_of_its_section() -> None:
    rope, slow = Rope(10_000.0, sections=(1, 2, 1)), 10_000.0 ** (-torch.arange(4) / 4)
    found = rotations(torch.tensor([[3, 2, 1]]), rope, 8).angle()[0]
    torch.testing.assert_close(found, torch.tensor([3.0, 2.0, 2.0, 1.0]) * slow)


@pytest.mark.parametrize(
    "said",
    [
        {"rope_theta": 3.0, "rope_scaling": {"type": "mrope", "mrope_section": [1, 2, 1]}},
        {"rope_parameters": {"rope_theta": 3.0, "rope_type": "default", "mrope_section": [1, 2, 1]}},
    ],
)
def test_sections_are_read_where_either_release_writes_them(said: dict[str, object]) -> None:
    assert read_rope(said, "rope_theta", 7.0, 8) == Rope(3.0, sections=(1, 2, 1))


@pytest.mark.parametrize("sizes", [[1, 2], [2, 2, 1], [4, 0, 0]])
def test_sections_that_do_not_share_out_a_head_are_refused(sizes: list[int]) -> None:
    with pytest.raises(LoadError, match="mrope_section"):
        read_rope({"rope_scaling": {"type": "mrope", "mrope_section": sizes}}, "rope_theta", 7.0, 8)
