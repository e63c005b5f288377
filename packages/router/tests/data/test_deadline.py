from hypothesis import given
from hypothesis import strategies as st

from router_time import VirtualLoop
from sie_router.data.deadline import Deadline

steps = st.lists(
    st.one_of(
        st.tuples(st.just("set"), st.integers(0, 20)),
        st.tuples(st.just("clear"), st.just(0)),
        st.tuples(st.just("pass"), st.integers(1, 15)),
    ),
    max_size=30,
)


@given(steps)
def test_it_rings_at_the_time_it_was_set_to_last_and_at_no_other(steps: list[tuple[str, int]]) -> None:
    loop, rung, wanted = VirtualLoop(), list[float](), list[float]()
    deadline = Deadline(loop.as_loop(), lambda: rung.append(loop.now))
    at: float | None = None
    for what, value in (*steps, ("pass", 100)):
        match what:
            case "set":
                deadline.set(value)
                at = loop.now + value
            case "clear":
                deadline.clear()
                at = None
            case _:
                if at is not None and at <= loop.now + value:
                    wanted.append(at)
                    at = None
                loop.pass_to(loop.now + value)
        assert len(loop.timers) <= 1
        assert rung == wanted


@given(st.lists(st.integers(0, 20), max_size=5))
def test_closed_it_leaves_the_loop_nothing(delays: list[int]) -> None:
    loop, rung = VirtualLoop(), list[float]()
    deadline = Deadline(loop.as_loop(), lambda: rung.append(loop.now))
    for delay in delays:
        deadline.set(delay)
    deadline.close()
    assert (loop.timers, rung) == ([], [])
