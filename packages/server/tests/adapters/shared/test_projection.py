import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sie_server.adapters.shared.linear import Dense, identity
from sie_server.adapters.shared.projection import linked


def layer(rows: int, columns: int, *, biased: bool, bends: bool, seed: int) -> Dense:
    generator = torch.Generator().manual_seed(seed)
    bias = torch.randn(rows, generator=generator) if biased else None
    return Dense(torch.randn(rows, columns, generator=generator) / columns, bias, torch.tanh if bends else identity)


@given(st.lists(st.tuples(st.integers(1, 9), st.booleans(), st.booleans()), max_size=5), st.integers(0, 2**31))
@settings(max_examples=50, deadline=None)
def test_linked_layers_compute_what_they_do_one_by_one(shapes: list[tuple[int, bool, bool]], seed: int) -> None:
    width, layers = 4, list[Dense]()
    for rows, biased, bends in shapes:
        layers.append(layer(rows, width, biased=biased, bends=bends, seed=seed + len(layers)))
        width = rows
    states = expected = torch.randn(3, 4, generator=torch.Generator().manual_seed(seed))
    for each in layers:
        expected = each(expected)
    chain = linked(layers, 4, "cpu", torch.float32)
    for each in chain:
        states = each(states)
    torch.testing.assert_close(states, expected, atol=1e-5, rtol=1e-4)
    assert all(each.activation is not identity for each in chain[:-1])  # nothing is left to merge
