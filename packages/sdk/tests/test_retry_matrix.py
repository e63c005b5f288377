"""Every answer that a published server or ours can give, and what becomes of the call: one row each.

The rows run through the flow under virtual time, where delays and budgets can be told, and through both clients against
a real server, where the answer comes once and then a result.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain, repeat
from typing import Any

import pytest

import sdk_answers as published
from sdk_clients import Open
from sdk_server import Reply, Reset, Serve, Step
from sdk_virtual_time import Scripted, answer, run
from sie_sdk import calls, errors
from sie_sdk.messages import Loss, Lost, Outcome, Send
from sie_sdk.retry import Terms
from sie_sdk.types import Item

BUDGET_S = 120.0
PATIENT = Terms(timeout_s=30, budget_s=BUDGET_S, gpu="l4", model="org/m")
HASTY = Terms(timeout_s=30, budget_s=BUDGET_S, wait_for_capacity=False, gpu="l4", model="org/m")


@dataclass(frozen=True)
class Row:
    """`patient` and `hasty`: whether it is tried again with and without waiting for capacity. `waits`: at most."""

    name: str
    step: Reply | Reset
    patient: bool
    hasty: bool
    error: type[errors.SIEError]
    waits: int | None = None


def refused(status: int, code: str | None, **headers: str) -> Reply:
    return published.said(status, {"error": {"code": code, "message": "m"}} if code else {"detail": "m"}, **headers)


def soon(status: int, code: str | None) -> Reply:
    return refused(status, code, Retry_After="0.1")


ROWS = [
    Row("202", published.said(202, {"gpu": "l4"}, Retry_After="0.1"), True, False, errors.ProvisioningError),
    Row("202 without a delay", published.said(202, {}), True, False, errors.ProvisioningError),
    Row("503 PROVISIONING", soon(503, "PROVISIONING"), True, False, errors.ProvisioningError),
    Row("503 LORA_LOADING", soon(503, "LORA_LOADING"), True, True, errors.LoraLoadingError, waits=10),
    Row("503 MODEL_LOADING", soon(503, "MODEL_LOADING"), True, True, errors.ModelLoadingError),
    Row("503 RESOURCE_EXHAUSTED", soon(503, "RESOURCE_EXHAUSTED"), True, True, errors.ResourceExhaustedError, waits=3),
    Row("503 QUEUE_FULL", soon(503, "QUEUE_FULL"), True, True, errors.ServerError),
    Row("503 BILLING", soon(503, "BILLING_CAPACITY_UNAVAILABLE"), True, True, errors.ServerError),
    Row("503 QUEUE_UNAVAILABLE", soon(503, "QUEUE_UNAVAILABLE"), True, True, errors.ServerError),
    Row("503 QUEUE_UNAVAILABLE bare", refused(503, "QUEUE_UNAVAILABLE"), False, False, errors.ServerError),
    Row("503 without code", soon(503, None), True, True, errors.ServerError),
    Row("503 without code or delay", refused(503, None), False, False, errors.ServerError),
    Row("503 GPU_NOT_CONFIGURED", soon(503, "GPU_NOT_CONFIGURED"), False, False, errors.ServerError),
    Row("503 SHUTTING_DOWN", soon(503, "SHUTTING_DOWN"), True, True, errors.ServerError),
    Row("503 WORKER_UNAVAILABLE", soon(503, "WORKER_UNAVAILABLE"), True, True, errors.ServerError),
    Row("503 STORE_UNAVAILABLE", soon(503, "STORE_UNAVAILABLE"), True, True, errors.ServerError),
    Row("429", soon(429, None), True, True, errors.RateLimitError),
    Row("502 MODEL_LOAD_FAILED", soon(502, "MODEL_LOAD_FAILED"), False, False, errors.ModelLoadFailedError),
    Row("500", soon(500, "INTERNAL_ERROR"), False, False, errors.ServerError),
    Row("504", soon(504, None), True, False, errors.ServerError),
    Row("400", soon(400, "INVALID_INPUT"), False, False, errors.RequestError),
    Row("400 INPUT_TOO_LONG", soon(400, "INPUT_TOO_LONG"), False, False, errors.InputTooLongError),
    Row("401", soon(401, None), False, False, errors.RequestError),
    Row("404 POOL_NOT_FOUND", soon(404, "POOL_NOT_FOUND"), False, False, errors.PoolNotFoundError),
    Row("303", published.said(303, {}, Location="/v1/elsewhere"), False, False, errors.RequestError),
    Row("peer reset", Reset(), True, False, errors.SIEConnectionError),
]
rows = pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)


def outcome_of(step: Step) -> Outcome:
    return answer(step) if isinstance(step, Reply) else Lost(Loss.CONNECTION_LOST, "reset")


def encode(terms: Terms, script: Iterator[Outcome], draw: float = 0.5) -> Any:
    plan = calls.encode(terms, "org/m", [{"text": "Hello"}], None)
    return run(plan, (Scripted(each, takes_s=0.05) for each in script), draw=draw)


@rows
@pytest.mark.parametrize("terms", [PATIENT, HASTY], ids=["patient", "hasty"])
def test_what_passes_is_outlived_and_what_lasts_is_raised(row: Row, terms: Terms) -> None:
    is_retried = row.patient if terms.wait_for_capacity else row.hasty
    done = encode(terms, chain([outcome_of(row.step)], repeat(answer(published.VECTOR))))
    assert (done.result is not None) is is_retried
    assert len(done.waits) == int(is_retried)
    assert is_retried or isinstance(done.error, row.error)


@rows
def test_what_lasts_for_ever_is_raised_within_the_budget_after_a_last_try(row: Row) -> None:
    done = encode(PATIENT, repeat(outcome_of(row.step)))
    assert isinstance(done.error, row.error)
    assert type(done.error) is row.error or row.error is errors.SIEError
    assert isinstance(done.effects[-1], Send), "every wait is followed by an attempt"
    assert done.elapsed_s <= BUDGET_S + 0.1
    if row.waits is not None:
        assert len(done.waits) == row.waits
    elif row.patient:
        assert done.elapsed_s >= BUDGET_S - 10


@rows
def test_both_clients_do_the_same(row: Row, serve: Serve, open_client: Open) -> None:
    step = row.step
    if isinstance(step, Reply) and row.patient and "Retry-After" not in step.headers:
        step = Reply(step.status, step.body, {**step.headers, "Retry-After": "0.1"})
    for is_patient, is_retried in ((True, row.patient), (False, row.hasty)):
        server = serve(step, published.VECTOR)
        client = open_client(server.url)
        if is_retried:
            client.encode("org/m", Item(text="Hello"), wait_for_capacity=is_patient)
        else:
            with pytest.raises(row.error):
                client.encode("org/m", Item(text="Hello"), wait_for_capacity=is_patient)
        assert len(server.seen) == 1 + is_retried
