"""Warnings of packages that are not ours."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def ignoring() -> Iterator[None]:
    """Let an import warn."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
