import numpy as np
import pytest
import torch

from sie_server.adapters.shared.gliner_heads import MAX_PROPOSALS, Head, Linear, Mlp, SpanHead, TokenHead

WIDTH, WORDS, LABELS = 4, 150, 60
RANDOM = torch.Generator().manual_seed(0)


def random(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=RANDOM)


def linear(inputs: int, outputs: int) -> Linear:
    return Linear(0.3 * random(outputs, inputs), random(outputs))


def mlp(inputs: int, outputs: int) -> Mlp:
    return Mlp(linear(inputs, 4 * outputs), linear(4 * outputs, outputs))


HEADS: dict[str, Head] = {
    "spans": SpanHead(mlp(WIDTH, WIDTH), mlp(WIDTH, WIDTH), mlp(2 * WIDTH, WIDTH), mlp(WIDTH, WIDTH), 12),
    "tokens": TokenHead(
        linear(WIDTH, 2 * WIDTH),
        linear(WIDTH, 2 * WIDTH),
        Mlp(linear(3 * WIDTH, 4 * WIDTH), linear(4 * WIDTH, 3)),
    ),
}


@pytest.mark.parametrize("head", HEADS.values(), ids=HEADS)
def test_a_window_does_not_depend_on_the_others(head: Head) -> None:
    words, labels = random(9, WIDTH), random(5, WIDTH)
    one, other, third = head.logits(words, labels, [(2, slice(0, 3)), (3, slice(3, 5)), (4, slice(0, 3))])
    alone = (
        (words[:2], labels[:3], (2, slice(0, 3))),
        (words[2:5], labels[3:], (3, slice(0, 2))),
        (words[5:], labels[:3], (4, slice(0, 3))),
    )
    for found, (some, others, share) in zip((one, other, third), alone, strict=True):
        torch.testing.assert_close(next(head.logits(some, others, [share])), found, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("head", HEADS.values(), ids=HEADS)
def test_no_threshold_proposes_more_than_can_be_looked_at(head: Head) -> None:
    logits = random(WORDS, 12, LABELS) if isinstance(head, SpanHead) else random(LABELS, WORDS, 3)
    spans = head.spans(logits, 0.0)
    assert len(spans) == MAX_PROPOSALS
    assert len(np.unique(np.stack([spans.firsts, spans.lasts, spans.labels]), axis=1).T) == MAX_PROPOSALS
    assert (np.diff(spans.firsts) >= 0).all()
