from hypothesis import given
from hypothesis import strategies as st

from sie_server.adapters.shared.mlm_head import chunks


@given(st.lists(st.integers(0, 40), max_size=12), st.integers(1, 16))
def test_pieces_hold_every_token_once_in_order_and_none_is_too_long(lengths: list[int], size: int) -> None:
    seen = list[tuple[int, int]]()  # (sequence, token of the whole batch)
    expected = [sequence for sequence, length in enumerate(lengths) for _ in range(length)]
    for start, spans in chunks(lengths, size):
        assert start % size == 0
        assert spans[0][1] == 0
        assert 0 < spans[-1][2] <= size
        for sequence, low, high in spans:
            seen += [(sequence, start + token) for token in range(low, high)]
    assert seen == [(sequence, token) for token, sequence in enumerate(expected)]
