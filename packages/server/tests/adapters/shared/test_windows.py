from hypothesis import given
from hypothesis import strategies as st

from sie_server.adapters.shared.windows import plan

SIZES = st.integers(0, 2000), st.integers(2, 300), st.data()


@given(*SIZES)
def test_every_token_is_answered_once_by_a_window_that_reads_it(tokens: int, room: int, data: st.DataObject) -> None:
    windows = plan(tokens, room, data.draw(st.integers(0, room // 2)))
    answered = [at for each in windows for at in range(each.own_start, each.own_end)]
    assert answered == list(range(tokens))
    assert all(each.start <= each.own_start <= each.own_end <= each.end for each in windows)
    assert all(each.end - each.start <= room for each in windows)


@given(*SIZES)
def test_a_token_stands_half_a_stride_from_the_borders_inside_a_text(
    tokens: int, room: int, data: st.DataObject
) -> None:
    stride = data.draw(st.integers(0, room // 2))
    windows = plan(tokens, room, stride)
    assert all(each.own_start - each.start >= stride // 2 for each in windows[1:])
    assert all(each.end - each.own_end >= stride // 2 for each in windows[:-1])


@given(*SIZES)
def test_windows_are_as_few_as_can_be(tokens: int, room: int, data: st.DataObject) -> None:
    stride = data.draw(st.integers(0, room // 2))
    assert len(plan(tokens, room, stride)) == 1 + max(0, -(-(tokens - room) // (room - stride)))
