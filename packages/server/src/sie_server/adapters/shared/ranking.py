"""Scores of a text's labels, as callers get them."""

from collections.abc import Sequence

from sie_server.adapters.base import Classification


def ranked(labels: Sequence[str], scores: Sequence[float], threshold: float) -> tuple[Classification, ...]:
    """The labels whose score reaches the threshold, the best first; equal ones keep the caller's order."""
    found = [Classification(label, score) for label, score in zip(labels, scores, strict=True)]
    return tuple(sorted((each for each in found if not each.score < threshold), key=lambda each: -each.score))
