from hypothesis import given
from hypothesis import strategies as st

from sie_server.core.recovery import MAX_SPLITS, History, Step, next_step

histories = st.builds(History, st.booleans(), st.integers(0, MAX_SPLITS), st.booleans(), st.booleans())


def follow(items: int, history: History) -> list[Step]:
    """The way of one piece that runs out of memory every time."""
    steps: list[Step] = []
    while not steps or steps[-1] is not Step.GIVE_UP:
        step = next_step(history, items=items, requests=1, is_out_of_memory=True)
        steps.append(step)
        match step:
            case Step.CLEAR_CACHES:
                history = History(True, history.splits, history.evicted, history.apart)
            case Step.SPLIT:
                items -= items // 2
                history = History(history.cleared, history.splits + 1, history.evicted, history.apart)
            case Step.EVICT:
                history = History(history.cleared, history.splits, True, history.apart)
            case _:
                pass
        assert len(steps) <= MAX_SPLITS + 3, "it must end"
    return steps


@given(st.integers(1, 1000), histories)
def test_lack_of_memory_is_fought_in_one_order_and_ends(items: int, history: History) -> None:
    order = [Step.CLEAR_CACHES, Step.SPLIT, Step.EVICT, Step.GIVE_UP]
    places = [order.index(step) for step in follow(items, history)]
    assert places == sorted(places)


@given(st.integers(1, 2**MAX_SPLITS))
def test_nothing_else_goes_before_the_batch_is_down_to_one_item(items: int) -> None:
    steps = follow(items, History())
    splits = steps.count(Step.SPLIT)
    assert 2**splits >= items
    assert steps[0] is Step.CLEAR_CACHES


@given(st.integers(1, 64), st.integers(1, 64), histories)
def test_another_failure_separates_requests_once(items: int, requests: int, history: History) -> None:
    step = next_step(history, items=items, requests=requests, is_out_of_memory=False)
    assert step is (Step.ISOLATE if requests > 1 and not history.apart else Step.GIVE_UP)
