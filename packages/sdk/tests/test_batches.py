import json
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sdk_clients import Open
from sdk_echo import Serving
from sie_protocol.items import ScoreEntry, ScoreResult
from sie_sdk import batches, calls, errors
from sie_sdk.batches import PART_BYTES, PART_ITEMS, merged, split
from sie_sdk.messages import Answer, Parallel, Resume
from sie_sdk.retry import Terms
from sie_sdk.types import Item

sizes = st.lists(st.integers(0, 50), max_size=60)


@given(sizes, st.integers(1, 9), st.integers(1, 99))
def test_parts_hold_every_item_once_in_order_and_keep_both_limits(sizes: list[int], items: int, size: int) -> None:
    parts = split(sizes, items, size)
    assert [place for part in parts for place in range(len(sizes))[part]] == list(range(len(sizes)))
    for part in parts:
        assert 1 <= len(sizes[part]) <= items
        assert sum(sizes[part]) <= size or len(sizes[part]) == 1


@given(sizes, st.integers(1, 9), st.integers(1, 99))
def test_no_two_neighbours_would_fit_into_one_part(sizes: list[int], items: int, size: int) -> None:
    parts = split(sizes, items, size)
    for one, other in pairwise(parts):
        assert len(sizes[one]) == items or sum(sizes[one]) + sizes[other][0] > size


def ranked(scores: list[float], first: int) -> ScoreResult:
    entries = [ScoreEntry(item_id=f"item-{first + at}", score=score, rank=0) for at, score in enumerate(scores)]
    entries.sort(key=lambda entry: -entry["score"])
    return {
        "model": "m",
        "scores": [{**e, "rank": rank} for rank, e in enumerate(entries)],
        "usage": {"input_tokens": 1},
    }


@given(st.lists(st.sampled_from([-1.5, 0.0, 0.25, 7.0]), min_size=1, max_size=30), st.integers(1, 30))
def test_rankings_of_parts_make_the_ranking_of_the_whole(scores: list[float], cut: int) -> None:
    parts = [ranked(scores[at : at + cut], at) for at in range(0, len(scores), cut)]
    result = merged(parts)
    assert result["scores"] == ranked(scores, 0)["scores"]
    assert result["usage"]["input_tokens"] == len(parts)


COUNT = 3 * PART_ITEMS + 17
TEXTS: list[Item] = [{"text": str(number)} for number in range(COUNT)]


def test_a_long_list_is_sent_in_parts_and_comes_back_in_order(echo: Serving, open_client: Open) -> None:
    server, progress = echo(), []
    results = open_client(server.url).encode_all("m", TEXTS, on_progress=lambda *seen: progress.append(seen))
    assert [int(result["dense"][0]) for result in results] == list(range(COUNT))
    assert sorted(server.sizes) == [17, PART_ITEMS, PART_ITEMS, PART_ITEMS]
    assert 1 <= server.most_at_once <= batches.AT_ONCE
    assert progress[-1] == (COUNT, COUNT)
    assert [done for done, _ in progress] == sorted(done for done, _ in progress)
    assert len(progress) == 4


def test_a_short_list_is_one_request_and_tells_its_end(echo: Serving, open_client: Open) -> None:
    server, progress = echo(), []
    open_client(server.url).encode_all("m", TEXTS[:PART_ITEMS], on_progress=lambda *seen: progress.append(seen))
    assert server.sizes == [PART_ITEMS]
    assert progress == [(PART_ITEMS, PART_ITEMS)]


def test_large_items_are_split_by_bytes(echo: Serving, open_client: Open) -> None:
    server = echo()
    big: list[Item] = [
        {"text": str(number), "metadata": {"pad": b"x" * (PART_BYTES // 2 - 100)}} for number in range(3)
    ]
    results = open_client(server.url).encode_all("m", big)
    assert [int(result["dense"][0]) for result in results] == [0, 1, 2]
    assert sorted(server.sizes) == [1, 2]


def test_a_long_ranking_is_that_of_one_request(echo: Serving, open_client: Open) -> None:
    items: list[Item] = [{"text": str((number * 7) % 11)} for number in range(COUNT)]
    items[5]["id"] = "mine"
    result = open_client(echo().url).score("m", {"text": "q"}, items)
    names = ["mine" if at == 5 else f"item-{at}" for at in range(COUNT)]
    wanted = sorted(range(COUNT), key=lambda at: -int(items[at]["text"] or 0))
    assert [entry["item_id"] for entry in result["scores"]] == [names[at] for at in wanted]
    assert [entry["rank"] for entry in result["scores"]] == list(range(COUNT))


def test_errors_of_items_stay_in_their_places_and_names_are_those_of_the_whole(
    echo: Serving, open_client: Open
) -> None:
    items: list[Item] = [{"text": "bad" if at % 100 == 3 else str(at)} for at in range(COUNT)]
    results = open_client(echo().url).extract_all("m", items)
    assert [result["id"] for result in results] == [f"item-{at}" for at in range(COUNT)]
    assert [at for at, result in enumerate(results) if "error" in result] == list(range(3, COUNT, 100))


def test_a_part_that_is_refused_for_good_ends_the_call_and_what_was_done_is_attached(
    echo: Serving, open_client: Open
) -> None:
    server = echo(refuse="700")
    with pytest.raises(errors.InputTooLongError) as raised:
        open_client(server.url).encode_all("m", TEXTS)
    partial = raised.value.partial
    assert partial is not None
    assert len(partial) == COUNT
    assert partial[700] is None
    for at, result in enumerate(partial):
        assert result is None or int(result["dense"][0]) == at


def test_a_part_that_is_told_to_wait_is_sent_again_and_the_others_are_not(echo: Serving, open_client: Open) -> None:
    server = echo(busy_once="700")
    results = open_client(server.url).encode_all("m", TEXTS)
    assert [int(result["dense"][0]) for result in results] == list(range(COUNT))
    assert sorted(server.sizes) == [17, PART_ITEMS, PART_ITEMS, PART_ITEMS, PART_ITEMS]


def test_after_a_failure_no_further_part_begins(echo: Serving, open_client: Open) -> None:
    server = echo(refuse="0")
    with pytest.raises(errors.InputTooLongError):
        open_client(server.url).encode_all("m", [{"text": str(at)} for at in range(40 * PART_ITEMS)])
    assert len(server.sizes) < 20


@pytest.mark.parametrize(
    ("details", "item", "told"),
    [({"item": 65}, 65 + 2 * PART_ITEMS, f"items[{65 + 2 * PART_ITEMS}]"), ({}, None, f"items[{2 * PART_ITEMS}:")],
)
def test_an_error_of_a_part_tells_the_place_in_the_list(details: dict[str, int], item: int | None, told: str) -> None:
    plan = calls.encode(Terms(timeout_s=30, budget_s=900), "m", calls.as_list([{"text": "x"}] * 3 * PART_ITEMS), None)
    parallel = next(plan(0.0))
    assert isinstance(parallel, Parallel)
    part = parallel.plans[2](0.0)
    next(part)
    body = json.dumps({"error": {"code": "INPUT_TOO_LONG", "message": "item 65 is too long", **details}})
    with pytest.raises(errors.InputTooLongError) as raised:
        part.send(Resume(0.1, 0.5, Answer(413, {"content-type": "application/json"}, body.encode())))
    assert raised.value.item == item
    assert told in str(raised.value)
    assert str(raised.value).endswith(f"; {raised.value.next_step}")


def test_an_item_that_cannot_travel_is_refused_before_anything_is_sent(echo: Serving, open_client: Open) -> None:
    server = echo()
    with pytest.raises(TypeError, match="cannot be sent"):
        open_client(server.url).encode_all("m", [*TEXTS, {"text": "x", "metadata": {"key": object()}}])
    assert server.sizes == []


def test_what_a_progress_callback_raises_ends_the_call(echo: Serving, open_client: Open) -> None:
    def stop(done: int, total: int) -> None:
        raise KeyError(done, total)

    with pytest.raises(KeyError):
        open_client(echo().url).encode_all("m", TEXTS, on_progress=stop)
