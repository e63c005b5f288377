"""Every answer that a published server or ours can give, and what becomes of the call: one row each.

All rows run through both clients, over real connections and under virtual time: what a client waits for is written down
and takes no time.
"""

import socket
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import pytest

import sdk_answers as published
from sdk_clients import BlockingClient, Open
from sdk_server import Reply, Reset, ScriptedServer, Serve, Stall
from sdk_virtual_time import VirtualTime
from sie_sdk import WaitEvent, errors, retry
from sie_sdk.types import Item

BUDGET_S = 60.0
TOLD_S = 7.0  # in Retry-After
ATTEMPT_S = 0.2  # of a request to a server that is silent; the only real time of these tests
HELLO = Item(text="Hello")


@dataclass(frozen=True)
class Nobody:
    """Nobody listens, until the client waits for the first time."""


@dataclass(frozen=True)
class Row:
    """`patient` and `hasty`: whether it is tried again with and without waiting for capacity.

    `untold_s`: the first wait when the server names none; None: that is final. `waits`: at most so many.
    """

    name: str
    step: Reply | Reset | Stall | Nobody
    patient: bool
    hasty: bool
    untold_s: float | None
    error: type[errors.SIEError]
    waits: int | None = None


def refused(status: int, code: str | None = None) -> Reply:
    return published.said(status, {"error": {"code": code, "message": "m"}} if code else {"detail": "m"})


def only_header(status: int, code: str) -> Reply:
    return published.said(status, {"detail": "m"}, X_SIE_Error_Code=code)


def passing(
    name: str, step: Reply, untold_s: float | None, error: type[errors.SIEError], waits: int | None = None
) -> Row:
    """Tried again for everybody."""
    return Row(name, step, True, True, untold_s, error, waits)


def patient(name: str, step: Reply | Reset | Stall | Nobody, untold_s: float, error: type[errors.SIEError]) -> Row:
    """Tried again for who waits for capacity."""
    return Row(name, step, True, False, untold_s, error)


def final(name: str, step: Reply, error: type[errors.SIEError]) -> Row:
    """Raised at once."""
    return Row(name, step, False, False, None, error)


ROWS = [
    patient("202", published.said(202, {"gpu": "l4"}), 5, errors.ProvisioningError),
    patient("503 PROVISIONING", refused(503, "PROVISIONING"), 5, errors.ProvisioningError),
    patient("503 PROVISIONING in the header", only_header(503, "PROVISIONING"), 5, errors.ProvisioningError),
    patient("503 provisioning in the body", refused(503, "provisioning"), 5, errors.ProvisioningError),
    passing("503 LORA_LOADING", refused(503, "LORA_LOADING"), 1, errors.LoraLoadingError, waits=10),
    passing("503 MODEL_LOADING", refused(503, "MODEL_LOADING"), 5, errors.ModelLoadingError),
    passing("503 RESOURCE_EXHAUSTED", refused(503, "RESOURCE_EXHAUSTED"), 5, errors.ResourceExhaustedError, waits=3),
    passing("503 QUEUE_FULL", refused(503, "QUEUE_FULL"), 1, errors.ServerError),
    passing("503 BILLING_CAPACITY_UNAVAILABLE", refused(503, "BILLING_CAPACITY_UNAVAILABLE"), 1, errors.ServerError),
    passing("503 QUEUE_UNAVAILABLE", refused(503, "QUEUE_UNAVAILABLE"), None, errors.ServerError),
    passing("503 transport_failure", refused(503, "transport_failure"), None, errors.ServerError),
    passing("503 other code", refused(503, "SOMETHING_NEW"), None, errors.ServerError),
    passing("503 no code", refused(503), None, errors.ServerError),
    final("503 GPU_NOT_CONFIGURED", refused(503, "GPU_NOT_CONFIGURED"), errors.ServerError),
    passing("503 SHUTTING_DOWN", refused(503, "SHUTTING_DOWN"), 1, errors.ServerError),
    passing("503 WORKER_UNAVAILABLE", refused(503, "WORKER_UNAVAILABLE"), 1, errors.ServerError),
    passing("503 STORE_UNAVAILABLE", refused(503, "STORE_UNAVAILABLE"), 1, errors.ServerError),
    passing("429", refused(429), 1, errors.RateLimitError),
    final("502 MODEL_LOAD_FAILED", published.LOAD_FAILED_0_10, errors.ModelLoadFailedError),
    final("500", refused(500, "INTERNAL_ERROR"), errors.ServerError),
    patient("504", refused(504), 5, errors.ServerError),
    patient("connect error", Nobody(), 1, errors.SIEConnectionError),
    patient("any timeout", Stall(), 1, errors.SIEConnectionError),
    patient("peer reset mid-flight", Reset(), 1, errors.SIEConnectionError),
    patient("peer gone mid-answer", Reply(200, b"x" * 100, cut_at=10), 1, errors.SIEConnectionError),
    final("400", refused(400, "INVALID_INPUT"), errors.RequestError),
    final("400 INPUT_TOO_LONG", refused(400, "INPUT_TOO_LONG"), errors.InputTooLongError),
    final("401", refused(401), errors.RequestError),
    final("403", refused(403, "FORBIDDEN"), errors.RequestError),
    final("404 MODEL_NOT_FOUND", refused(404, "MODEL_NOT_FOUND"), errors.RequestError),
    final("404 POOL_NOT_FOUND", refused(404, "POOL_NOT_FOUND"), errors.PoolNotFoundError),
    final("303", published.said(303, {}, Location="/v1/elsewhere"), errors.RequestError),
]
rows = pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
waiting = pytest.mark.parametrize("waits", [True, False], ids=["patient", "hasty"])


@dataclass
class Stage:
    """One row played to one client: `step` once or, without `then`, for ever."""

    serve: Serve
    open_client: Open
    step: Reply | Reset | Stall | Nobody
    then: Reply | None

    def __post_init__(self) -> None:
        self.time = VirtualTime()
        self._bound = socket.socket()
        self._bound.bind(("127.0.0.1", 0))
        self._server: ScriptedServer | None = None
        if not isinstance(self.step, Nobody):
            steps = (self.step,) if self.then is None else (self.step, self.then)
            self._server = self.serve(*steps, on=self._bound)

    def encode(self, *, waits: bool, **arguments: Any) -> errors.SIEError | None:
        """The error of the call, if it ends in one."""
        client = self._client()
        try:
            client.encode("org/m", HELLO, gpu="l4", wait_for_capacity=waits, provision_timeout_s=BUDGET_S, **arguments)
        except errors.SIEError as error:
            return error
        finally:
            if self._server is None:
                self._bound.close()
        return None

    @property
    def attempts(self) -> int | None:
        """Requests that arrived; None where nobody counted."""
        return None if self._server is None or isinstance(self.step, Nobody) else len(self._server.seen)

    def _client(self) -> BlockingClient:
        attempt_s = ATTEMPT_S if isinstance(self.step, Stall) else 30.0
        url = f"http://127.0.0.1:{self._bound.getsockname()[1]}"
        return self.open_client(url, timeout_s=attempt_s, virtual=self.time, on_wait=self._come)

    def _come(self, _: WaitEvent) -> None:
        if self._server is None and self.then is not None:
            self._server = self.serve(self.then, on=self._bound)


@pytest.fixture
def play(serve: Serve, open_client: Open) -> Callable[..., Stage]:
    return lambda step, then=None: Stage(serve, open_client, step, then)


def told(step: Reply | Reset | Stall | Nobody) -> Reply | Reset | Stall | Nobody:
    if not isinstance(step, Reply) or step.cut_at is not None:
        return step
    return replace(step, headers={**step.headers, "Retry-After": f"{TOLD_S:g}"})


@rows
@waiting
def test_what_passes_is_outlived_as_the_server_says_and_what_lasts_is_raised(
    row: Row, waits: bool, play: Callable[..., Stage]
) -> None:
    is_retried = row.patient if waits else row.hasty
    step = told(row.step)
    stage = play(step, published.VECTOR)
    error = stage.encode(waits=waits)
    assert (error is None) is is_retried
    assert is_retried or isinstance(error, row.error)
    delay_s = TOLD_S if step is not row.step else row.untold_s
    assert stage.time.waited == ([delay_s] if is_retried else [])
    assert stage.attempts in (None, 1 + is_retried)


@rows
def test_a_server_that_names_no_delay_is_given_the_usual_one(row: Row, play: Callable[..., Stage]) -> None:
    stage = play(row.step, published.VECTOR)
    error = stage.encode(waits=True)
    assert (error is None) is (row.untold_s is not None)
    assert stage.time.waited == ([] if row.untold_s is None else [row.untold_s])


@rows
def test_what_lasts_for_ever_is_raised_within_the_budget_after_a_last_try(row: Row, play: Callable[..., Stage]) -> None:
    stage = play(told(row.step))
    error = stage.encode(waits=True)
    assert type(error) is row.error
    assert stage.attempts in (None, len(stage.time.waited) + 1), "every wait is followed by an attempt"
    if row.waits is not None and row.waits * TOLD_S < BUDGET_S:
        assert len(stage.time.waited) == row.waits
    elif row.patient:
        reserved_s = ATTEMPT_S if isinstance(row.step, Stall) else retry.LAST_ATTEMPT_S
        assert sum(stage.time.waited) == pytest.approx(BUDGET_S - reserved_s)  # all of it, but for the last attempt


def test_an_adapter_that_loads_is_asked_for_ten_times_more(play: Callable[..., Stage]) -> None:
    stage = play(refused(503, "LORA_LOADING"))
    assert isinstance(stage.encode(waits=True), errors.LoraLoadingError)
    assert stage.time.waited == [1] * 10


def test_memory_is_waited_for_ever_longer(play: Callable[..., Stage]) -> None:
    stage = play(refused(503, "RESOURCE_EXHAUSTED"))
    assert isinstance(stage.encode(waits=True), errors.ResourceExhaustedError)
    assert stage.time.waited == [5, 10, 20]
    assert isinstance(play(stage.step).encode(waits=True, max_oom_retries=0), errors.ResourceExhaustedError)
    again = play(stage.step)
    assert isinstance(again.encode(waits=True, max_oom_retries=1), errors.ResourceExhaustedError)
    assert again.time.waited == [5]


@pytest.mark.parametrize(
    ("text", "waited_s"), [("2.5", 2.5), ("0", 0.1), ("nan", 5), ("inf", 5), ("-3", 5), ("soon", 5)]
)
def test_a_delay_that_makes_no_sense_is_none(text: str, waited_s: float, play: Callable[..., Stage]) -> None:
    stage = play(published.said(202, {}, Retry_After=text), published.VECTOR)
    assert stage.encode(waits=True) is None
    assert stage.time.waited == [waited_s]


@pytest.mark.parametrize("call", ["get_pool", "delete_pool"])
def test_a_call_about_a_pool_waits_for_a_router_that_restarts_but_not_for_ever(
    call: str, serve: Serve, open_client: Open
) -> None:
    time = VirtualTime()
    client = open_client(serve(Reset(), published.said(404, {"detail": {"message": "gone"}})).url, virtual=time)
    assert not getattr(client, call)("tenant")
    assert time.waited == [1]
    with pytest.raises(errors.SIEConnectionError):
        getattr(open_client(serve(Reset()).url, virtual=time), call)("tenant")
    assert sum(time.waited[1:]) == pytest.approx(30 - retry.LAST_ATTEMPT_S)


@pytest.mark.parametrize("call", ["get_pool", "delete_pool", "create_pool"])
@pytest.mark.parametrize("detail", [{"message": "no"}, "no", ["no"]], ids=["object", "text", "list"])
def test_a_refusal_about_a_pool_is_a_pool_error_in_the_words_of_the_router(
    call: str, detail: object, serve: Serve, open_client: Open
) -> None:
    client = open_client(serve(published.said(409, {"detail": detail})).url)
    arguments = ("tenant", {"l4": 1}) if call == "create_pool" else ("tenant",)
    with pytest.raises(errors.PoolError, match="no") as raised:
        getattr(client, call)(*arguments)
    assert raised.value.pool_name == "tenant"
