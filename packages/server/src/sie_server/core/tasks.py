"""Which of the LoRAs inside a model's weights a profile runs its queries and documents with. Pure; knows no weights."""

from collections.abc import Mapping
from typing import Any, Final, Generic, NamedTuple, TypeVar

QUERY_TASK: Final = "query_task"
DOC_TASK: Final = "doc_task"
T = TypeVar("T")


class BySide(NamedTuple, Generic[T]):
    """One thing for queries and one for documents; None where there is none."""

    query: T | None = None
    document: T | None = None


def tasks_of(options: Mapping[str, Any]) -> BySide[str]:
    """The tasks that a profile's options name.

    Raises:
        ValueError: one is no name.
    """
    found = BySide(*(options.get(key) for key in (QUERY_TASK, DOC_TASK)))
    for key, task in zip((QUERY_TASK, DOC_TASK), found, strict=True):
        if task is not None and (not isinstance(task, str) or not task):
            raise ValueError(f"{key} is {task!r}; expected the name of a task")
    return found
