"""Which of some relations are kept, against the rule written out over plain lists."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from sie_server.adapters.shared.relations import Triples, of_head, strongest


@st.composite
def proposals(draw: st.DrawFn) -> list[tuple[int, int, int, float]]:
    keys = draw(st.lists(st.tuples(*(st.integers(0, 3),) * 3), max_size=40))
    scores = draw(st.permutations(range(len(keys))))
    return [(*key, (1 + score) / 64) for key, score in zip(keys, scores, strict=True)]


def triples(rows: list[tuple[int, int, int, float]]) -> Triples:
    heads, tails, relations = np.array([each[:3] for each in rows], np.int64).reshape(-1, 3).T
    return Triples(heads, tails, relations, np.array([each[3] for each in rows], np.float32))


@given(proposals(), st.integers(0, 40), st.integers(1, 4), st.integers(0, 50))
def test_the_strongest_are_kept_once_each_and_so_many_of_a_pair(
    rows: list[tuple[int, int, int, float]], cut: int, top_k: int, most: int
) -> None:
    expected: list[tuple[int, int, int, float]] = []
    for head, tail, relation, score in sorted(rows, key=lambda each: -each[3]):
        of_pair = [each for each in expected if each[:2] == (head, tail)]
        if len(of_pair) < top_k and all(each[2] != relation for each in of_pair):
            expected.append((head, tail, relation, score))
    kept = strongest([triples(rows[:cut]), triples(rows[cut:])], top_k, most)
    found = list(zip(*(each.tolist() for each in (kept.heads, kept.tails, kept.relations, kept.scores)), strict=True))
    assert found == expected[:most]


@given(st.integers(1, 6), st.integers(1, 6), st.integers(0, 10), st.integers(1, 7), st.randoms())
def test_a_head_has_so_many_of_the_best_with_each_other_tail(
    tails: int, relations: int, tenths: int, top_k: int, random: np.random.Generator
) -> None:
    numbers = random.sample(range(1000), tails * relations)  # type: ignore[attr-defined]  # Python's, not numpy's
    scores = np.array(numbers, np.float32).reshape(tails, relations) / 1000
    head, names = 10, np.arange(10, 10 + tails)
    found = of_head(head, names, scores, tenths / 10, top_k)
    for row, tail in enumerate(names.tolist()):
        best = sorted((-scores[row]).tolist())[:top_k]
        expected = [] if tail == head else sorted(-each for each in best if -each > np.float32(tenths / 10))
        assert sorted(found.scores[found.tails == tail].tolist()) == expected
    assert (found.heads == head).all()
