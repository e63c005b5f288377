from hypothesis import given
from hypothesis import strategies as st

from sie_server.adapters.shared.chunks import chunks


@given(st.lists(st.integers(1, 600), max_size=60), st.integers(1, 1000))
def test_pieces_are_bounded_with_padding_and_leave_nothing_out(lengths: list[int], limit: int) -> None:
    pieces = list(chunks(lengths, limit))
    assert sorted(at for piece in pieces for at in piece) == list(range(len(lengths)))
    for piece in pieces:
        assert len(piece) == 1 or len(piece) * max(lengths[at] for at in piece) <= limit
