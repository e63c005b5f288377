"""One chunk of records through the SDK: rows in the same order, refused records told apart from broken clusters."""

from collections.abc import Sequence
from typing import Any, Final

from sie_cli.batch import job as job_kinds
from sie_cli.batch.job import ERROR, BatchError, Job, Record, Row
from sie_protocol.errors import LABELS, ErrorCode
from sie_sdk import SIEAsyncClient, SIEError
from sie_sdk.types import Item

# Refusals that are about the records; whatever else goes wrong concerns every record alike.
OF_RECORDS: Final = frozenset(
    {
        ErrorCode.INVALID_INPUT,
        ErrorCode.INPUT_TOO_LONG,
        ErrorCode.INFERENCE_ERROR,
        ErrorCode.RESOURCE_EXHAUSTED,
    }
)
UNREADABLE: Final = "UNREADABLE"  # of a record that never left: what a code of the cluster is to the others
_REQUEST_ONLY: Final = ("timing", "usage", "id")  # a row has its own id, and no share of its request's times and tokens


class Caller:
    """Sends chunks of one job. With `keep_going` a refused record becomes a row with its error."""

    def __init__(self, client: SIEAsyncClient, job: Job, *, keep_going: bool, budget_s: float) -> None:
        self._client = client
        self._job = job
        self._keep_going = keep_going
        self._budget_s = budget_s

    async def rows(self, records: Sequence[Record]) -> list[Row]:
        """One row per record.

        Raises:
            BatchError: a record is refused, and the run does not keep going.
            SIEError: the cluster cannot serve the job.
        """
        readable = [record for record in records if not record.fault]
        answered = iter(await self._answered(readable) if readable else ())
        return [_set_aside(record) if record.fault else next(answered) for record in records]

    async def _answered(self, records: Sequence[Record]) -> list[Row]:
        try:
            rows = await self._ask(records)
        except SIEError as error:
            if error.code not in OF_RECORDS:
                raise
            return await self._refused(records, error)
        for row in rows:
            if ERROR in row and not self._keep_going:
                raise _stop(records, f"{row['id']}: {row[ERROR]['code']}: {row[ERROR]['message']}")
        return rows

    async def _refused(self, records: Sequence[Record], error: SIEError) -> list[Row]:
        """Halve until the records that are refused stand alone; all others have their results."""
        if not self._keep_going:
            at_fault = records if error.item is None else records[error.item : error.item + 1]
            raise _stop(at_fault or records, self._told(error), is_theirs=_is_of_one(error)) from error
        if len(records) == 1:
            return [{"id": records[0].id, ERROR: {"code": str(error.code), "message": error.message}}]
        half = len(records) // 2
        return await self._answered(records[:half]) + await self._answered(records[half:])

    def _told(self, error: SIEError) -> str:
        """The SDK's message in words of this command."""
        return f"{error}: --labels person,place" if error.param == LABELS else str(error)

    async def _ask(self, records: Sequence[Record]) -> list[Row]:
        # Answers are matched by place: ids of users may repeat, which the wire does not allow.
        items: list[Item] = [{"text": record.text} for record in records]
        found = await self._results(items)
        return [
            {"id": record.id, **{name: value for name, value in result.items() if name not in _REQUEST_ONLY}}
            for record, result in zip(records, found, strict=True)
        ]

    async def _results(self, items: list[Item]) -> list[dict[str, Any]]:
        job = self._job
        common: dict[str, Any] = {"options": job.options or None, "gpu": job.gpu, "provision_timeout_s": self._budget_s}
        match job.operation:
            case job_kinds.ENCODE:
                encoded = await self._client.encode(
                    job.model,
                    items,
                    output_types=list(job.output_types) or None,
                    output_dtype=job.dtype,
                    instruction=job.instruction,
                    **common,
                )
                return [dict(each) for each in encoded]
            case job_kinds.SCORE:
                query: Item = {"text": job.query or ""}
                scored = await self._client.score(job.model, query, items, instruction=job.instruction, **common)
                by_place = {entry["item_id"]: entry["score"] for entry in scored["scores"]}
                return [{"score": by_place[f"item-{place}"]} for place in range(len(items))]
            case job_kinds.EXTRACT:
                labels = list(job.labels) or None
                extracted = await self._client.extract(
                    job.model, items, labels=labels, instruction=job.instruction, **common
                )
                return [dict(each) for each in extracted]
            case _:
                raise AssertionError(job.operation)


def _set_aside(record: Record) -> Row:
    return {"id": record.id, ERROR: {"code": UNREADABLE, "message": record.fault}}


def _is_of_one(error: SIEError) -> bool:
    """Whether a refusal is about a record and not about the command: what is wrong with an item names its place."""
    return error.code != ErrorCode.INVALID_INPUT or error.item is not None


def _stop(records: Sequence[Record], what: str, *, is_theirs: bool = True) -> BatchError:
    if not is_theirs:
        return BatchError(what)
    first, last = records[0].id, records[-1].id
    where = f"record {first}" if len(records) == 1 else f"records {first} to {last}"
    return BatchError(f"{where}: {what}; --keep-going sets refused records aside and does the others")
