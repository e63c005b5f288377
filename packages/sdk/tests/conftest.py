from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from sdk_clients import OnALoop, Open, Threaded
from sdk_echo import Serving, echoing
from sdk_server import Serve, serving


@pytest.fixture
def serve() -> Iterator[Serve]:
    """Start a scripted server; it stops with the test."""
    with ExitStack() as stack:
        yield lambda *steps, **options: stack.enter_context(serving(*steps, **options))


@pytest.fixture
def echo() -> Iterator[Serving]:
    """Start a server that answers every item by itself; it stops with the test."""
    with ExitStack() as stack:
        yield lambda **options: stack.enter_context(echoing(**options))


@pytest.fixture(params=[Threaded, OnALoop], ids=["sync", "async"])
def open_client(
    request: pytest.FixtureRequest,
    serve: Serve,  # noqa: ARG001 - asked for so that servers stop after clients
    echo: Serving,  # noqa: ARG001 - the same
) -> Iterator[Open]:
    """Open a client of either kind; it is closed with the test, before the servers."""
    with ExitStack() as stack:
        yield lambda *arguments, **settings: stack.enter_context(request.param(*arguments, **settings))
