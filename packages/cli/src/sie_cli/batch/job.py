"""What a batch run is about, as values: the job, its records and its rows."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

ENCODE: Final = "encode"
SCORE: Final = "score"
EXTRACT: Final = "extract"
ERROR: Final = "error"  # key of a row that stands for a refused record: `{"code", "message"}`

Row = dict[str, Any]  # `id`, and the result as the SDK gives it, or `error`


class BatchError(RuntimeError):
    """The run cannot start or go on; the message says what to do."""


@dataclass(frozen=True, slots=True)
class Record:
    """One text of the input. `id` is what the caller calls it, by default its line or row number from 1.

    `fault`: why there is no text; such a record is set aside.
    """

    id: str
    text: str
    fault: str = ""


@dataclass(frozen=True, slots=True)
class Job:
    """All that decides what a record becomes. A run may continue only a run of the same job.

    `gpu` is where it runs, which changes no result and is therefore no part of `described`.
    """

    operation: str
    model: str
    gpu: str | None = None
    query: str | None = None
    output_types: tuple[str, ...] = ()
    dtype: str | None = None
    instruction: str | None = None
    labels: tuple[str, ...] = ()
    options: Mapping[str, Any] = field(default_factory=dict)

    def described(self) -> dict[str, Any]:
        """The job as plain values, what is not set left out."""
        values = {
            "operation": self.operation,
            "model": self.model,
            "query": self.query,
            "output_types": list(self.output_types),
            "dtype": self.dtype,
            "instruction": self.instruction,
            "labels": list(self.labels),
            "options": dict(self.options),
        }
        return {name: value for name, value in values.items() if value}


def is_error(row: Row) -> bool:
    """True for a row that holds a refusal instead of a result."""
    return ERROR in row
