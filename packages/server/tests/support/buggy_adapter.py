"""An adapter with a bug."""

from collections.abc import Sequence

from sie_server.adapters.base import Input, Prepared
from sie_server.adapters.hash import HashAdapter

ADAPTERS = {"buggy": "buggy_adapter:BuggyAdapter"}


class BuggyAdapter(HashAdapter):
    """Divides by the number of texts that it did not get."""

    def prepare(self, inputs: Sequence[Input], *, is_query: bool = False) -> list[Prepared]:
        prepared = super().prepare(inputs, is_query=is_query)
        return prepared[: 1 // (len(inputs) - len(prepared))]
