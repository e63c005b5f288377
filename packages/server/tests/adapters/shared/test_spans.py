from itertools import starmap
from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from sie_server.adapters.shared.spans import Spans, choose, join

Proposal = tuple[int, int, int, float]  # first word, width, label, score
PROPOSALS = st.lists(
    st.tuples(st.integers(0, 12), st.integers(0, 4), st.integers(0, 2), st.integers(1, 20).map(lambda n: n / 20)),
    max_size=30,
    unique_by=lambda proposal: proposal[:3],
)


def spans(proposals: list[Proposal]) -> Spans:
    firsts, widths, labels = (np.array([p[at] for p in proposals], np.int64) for at in range(3))
    return Spans(firsts, firsts + widths, labels, np.array([p[3] for p in proposals], np.float32))


def rows(some: Spans) -> list[tuple[int, ...]]:
    return list(zip(some.firsts.tolist(), some.lasts.tolist(), some.labels.tolist(), strict=True))


def may_stand_together(one: Any, other: Any, *, flat: bool, multi_label: bool) -> bool:
    if one[:2] == other[:2]:
        return multi_label
    words, others = set(range(one[0], one[1] + 1)), set(range(other[0], other[1] + 1))
    return not words & others or (not flat and (words <= others or others <= words))


@given(PROPOSALS, st.booleans(), st.booleans())
def test_what_is_left_out_gives_way_to_something_at_least_as_good(
    proposals: list[Proposal], flat: bool, multi_label: bool
) -> None:
    whole = spans(proposals)
    kept = choose(whole, flat=flat, multi_label=multi_label)
    chosen, scores = rows(kept), dict(zip(rows(whole), whole.scores.tolist(), strict=True))

    def fits(one: Any, other: Any) -> bool:
        return may_stand_together(one, other, flat=flat, multi_label=multi_label)

    assert list(kept.firsts) == sorted(kept.firsts)
    assert all(starmap(fits, ((one, other) for one in chosen for other in chosen if one != other)))
    for row, score in scores.items():
        assert row in chosen or any(not fits(row, other) and scores[other] >= score for other in chosen)


@given(st.lists(st.tuples(st.integers(0, 5), PROPOSALS), min_size=1, max_size=3))
def test_joined_parts_hold_each_proposal_once_with_its_best_score(parts: list[tuple[int, list[Proposal]]]) -> None:
    best: dict[tuple[int, int, int], float] = {}
    for start, proposals in parts:
        for first, width, label, score in proposals:
            key = (start + first, start + first + width, label)
            best[key] = max(best.get(key, 0.0), float(np.float32(score)))
    joined = join([(start, spans(proposals)) for start, proposals in parts])
    assert dict(zip(rows(joined), joined.scores.tolist(), strict=True)) == best
    assert len(joined) == len(best)
