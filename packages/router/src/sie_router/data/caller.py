"""Who sent a request: found out at the edge, before anything else reads it, and kept in its ASGI scope."""

from collections.abc import MutableMapping
from typing import Any, Final

from sie_protocol.errors import Problem
from sie_router.core.pools import Caller

KEY: Final = "sie.caller"


def seen_as(scope: MutableMapping[str, Any]) -> Caller:
    """The caller that the edge found; a stranger where none is needed."""
    found: Caller | Problem = scope[KEY]
    return Caller() if isinstance(found, Problem) else found


def caller_of(scope: MutableMapping[str, Any]) -> Caller:
    """The caller that the edge found.

    Raises:
        Problem: UNAUTHENTICATED, if it found none.
    """
    found: Caller | Problem = scope[KEY]
    if isinstance(found, Problem):
        raise found
    return found
