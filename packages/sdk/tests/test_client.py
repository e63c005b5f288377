import logging
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import sdk_answers as published
from sdk_clients import OnALoop, Open, Threaded
from sdk_server import Drip, Reply, Reset, Serve, Stall, Step, serving
from sie_sdk import SIEClient, WaitEvent, errors
from sie_sdk.types import Item

HELLO = Item(text="Hello world")
SOON = "0.1"
STARTING = published.said(202, {"status": "provisioning", "gpu": "l4"}, Retry_After=SOON)
STARTING_503 = published.said(503, {"error": {"code": "PROVISIONING", "message": "soon"}}, Retry_After=SOON)
LOADING = published.said(503, {"detail": {"code": "MODEL_LOADING", "message": "soon"}}, Retry_After=SOON)
READY = published.health(published.worker("l4"), configured=["l4"])


def test_one_item_gives_one_result_and_a_list_gives_a_list(serve: Serve, open_client: Open) -> None:
    client = open_client(serve(published.VECTOR).url)
    assert client.encode("org/m", HELLO)["dense"].shape == (2,)
    assert client.encode("org/m", {"text": "Hello"})["dense"].dtype == np.float32
    [only] = client.encode_all("org/m", [HELLO])
    assert only["dense"].tolist() == pytest.approx([0.6, 0.8])


def test_every_argument_reaches_the_server(serve: Serve, open_client: Open) -> None:
    server = serve(published.VECTOR)
    client = open_client(server.url + "/", api_key="k-1", gpu="l4", options={"profile": "fast", "a": 1})
    client.encode(
        "BAAI/bge-m3",
        HELLO,
        output_types=["dense"],
        instruction="find",
        output_dtype="float32",
        is_query=True,
        options={"a": 2},
        gpu="tenant/t4",
    )
    [seen] = server.seen
    assert (seen.method, seen.path) == ("POST", "/v1/encode/BAAI/bge-m3")
    assert seen.decoded["params"] == {
        "output_types": ["dense"],
        "instruction": "find",
        "output_dtype": "float32",
        "options": {"profile": "fast", "a": 2, "is_query": True},
    }
    told = {name: value for name, value in seen.headers.items() if name.startswith(("x-sie", "auth", "content-ty"))}
    assert told == {
        "x-sie-sdk-version": "0.1.10",
        "x-sie-pool": "tenant",
        "x-sie-machine-profile": "t4",
        "authorization": "Bearer k-1",
        "content-type": "application/msgpack",
    }


def test_headers_for_a_proxy_go_with_every_request(serve: Serve, open_client: Open) -> None:
    server = serve(published.VECTOR)
    open_client(server.url, base_url_headers={"X-Proxy-Ticket": "t-1"}).encode("org/m", HELLO)
    assert server.seen[0].headers["x-proxy-ticket"] == "t-1"
    with pytest.raises(ValueError, match="the header 'X-Proxy-Ticket'"):
        open_client(server.url, base_url_headers={"X-Proxy-Ticket": "t\r\nX-Other: 1"})


def test_a_score_call_sends_what_it_is_told_and_gives_the_ranked_items(serve: Serve, open_client: Open) -> None:
    answer = published.scored(("b", 2.5), ("item-0", -1.0), query_id="q", usage={"input_tokens": 9, "later": 1})
    server = serve(LOADING, answer)
    client = open_client(server.url, options={"profile": "fast"})
    query, items = Item(id="q", text="who"), [Item(text="a"), Item(id="b", text="b")]
    result = client.score("org/m", query, items, instruction="find", options={"similarity": "dot"}, gpu="tenant/l4")
    assert [(entry["item_id"], entry["score"], entry["rank"]) for entry in result["scores"]] == [
        ("b", 2.5, 0),
        ("item-0", -1.0, 1),
    ]
    assert (result["model"], result["query_id"], result["usage"]["input_tokens"]) == ("org/m", "q", 9)
    _, seen = server.seen
    assert (seen.method, seen.path) == ("POST", "/v1/score/org/m")
    assert seen.decoded == {
        "query": {"id": "q", "text": "who"},
        "items": [{"text": "a"}, {"id": "b", "text": "b"}],
        "instruction": "find",
        "options": {"profile": "fast", "similarity": "dot"},
    }
    assert (seen.headers["x-sie-pool"], seen.headers["x-sie-machine-profile"]) == ("tenant", "l4")
    with pytest.raises(errors.ProvisioningError):
        open_client(serve(STARTING).url).score("org/m", query, items, wait_for_capacity=False)


def test_an_extract_call_sends_what_it_is_told_and_gives_one_result_an_item(serve: Serve, open_client: Open) -> None:
    cat = {"text": "cat", "label": "animal", "score": 0.9, "start": 2, "end": 5, "bbox": None}
    answer = published.extracted({"id": "x", "entities": [cat]}, {"id": "item-1", "data": {"a": 1}})
    server = serve(LOADING, answer)
    client = open_client(server.url, options={"profile": "fast", "threshold": 0.1})
    items = [Item(id="x", text="a cat"), Item(text="b")]
    results = client.extract_all(
        "org/m",
        items,
        labels=["animal", "a"],
        output_schema={"type": "object"},
        instruction="find",
        options={"threshold": 0.5},
        gpu="tenant/l4",
    )
    nothing: dict[str, list[str]] = {"relations": [], "classifications": [], "objects": []}
    assert results == [
        {**nothing, "id": "x", "entities": [cat], "data": {}},
        {**nothing, "id": "item-1", "entities": [], "data": {"a": 1}},
    ]
    _, seen = server.seen
    assert (seen.method, seen.path) == ("POST", "/v1/extract/org/m")
    assert seen.decoded == {
        "items": [{"id": "x", "text": "a cat"}, {"text": "b"}],
        "params": {
            "labels": ["animal", "a"],
            "output_schema": {"type": "object"},
            "instruction": "find",
            "options": {"profile": "fast", "threshold": 0.5},
        },
    }
    assert (seen.headers["x-sie-pool"], seen.headers["x-sie-machine-profile"]) == ("tenant", "l4")
    one = open_client(serve(published.extracted({"classifications": [{"label": "a", "score": 1.0}]})).url)
    assert one.extract("org/m", HELLO)["classifications"] == [{"label": "a", "score": 1.0}]
    with pytest.raises(errors.ProvisioningError):
        open_client(serve(STARTING).url).extract("org/m", HELLO, wait_for_capacity=False)


def test_an_encoded_model_id_arrives_as_it_was(serve: Serve, open_client: Open) -> None:
    server = serve(published.VECTOR)
    open_client(server.url + "/prefix").encode("org/a b%2Fc", HELLO)
    assert server.seen[0].path == "/prefix/v1/encode/org/a%20b%252Fc"


def test_a_cold_cluster_answers_in_the_end(serve: Serve, open_client: Open) -> None:
    told: list[WaitEvent] = []
    server = serve(STARTING, STARTING_503, LOADING, published.VECTOR)
    result = open_client(server.url, on_wait=told.append).encode("org/m", HELLO, gpu="l4")
    assert result["dense"].shape == (2,)
    assert [event.reason for event in told] == ["PROVISIONING", "PROVISIONING", "MODEL_LOADING"]
    assert [event.attempt for event in told] == [1, 2, 3]
    assert len(server.seen) == 4


@pytest.mark.parametrize("reply", [published.PROVISIONING_202, published.PROVISIONING_503], ids=["202", "503"])
def test_who_does_not_wait_learns_at_once_when_to_come_back(serve: Serve, open_client: Open, reply: Reply) -> None:
    server = serve(reply)
    with pytest.raises(errors.ProvisioningError) as raised:
        open_client(server.url).encode("org/m", HELLO, gpu="l4", wait_for_capacity=False)
    assert (raised.value.gpu, str(raised.value.retry_after)) == ("l4", f"{float(reply.headers['Retry-After'])}")
    assert len(server.seen) == 1


def test_a_budget_is_kept_in_real_time(serve: Serve, open_client: Open) -> None:
    began = time.monotonic()
    with pytest.raises(errors.ProvisioningError):
        open_client(serve(published.PROVISIONING_202).url).encode("org/m", HELLO, provision_timeout_s=0.6)
    assert 0.3 <= time.monotonic() - began < float(published.PROVISIONING_202.headers["Retry-After"]) / 2


@pytest.mark.parametrize("lost", [Reset(), Reply(200, b"x" * 100, cut_at=10)], ids=["reset", "cut"])
def test_a_broken_connection_is_retried_by_who_waits(serve: Serve, open_client: Open, lost: Reset | Reply) -> None:
    told: list[WaitEvent] = []
    client = open_client(serve(lost, published.VECTOR).url, on_wait=told.append)
    assert client.encode("org/m", HELLO)["dense"].shape == (2,)
    assert [event.reason for event in told] == ["CONNECTION_LOST"]


@pytest.mark.parametrize("lost", [Reset(), Reply(200, b"x" * 100, cut_at=10)], ids=["reset", "cut"])
def test_a_broken_connection_is_an_error_for_who_does_not_wait(
    serve: Serve, open_client: Open, lost: Reset | Reply
) -> None:
    server = serve(lost, published.VECTOR)
    with pytest.raises(errors.SIEConnectionError) as raised:
        open_client(server.url).encode("org/m", HELLO, wait_for_capacity=False)
    assert raised.value.code == "CONNECTION_LOST"
    assert len(server.seen) == 1


@pytest.mark.parametrize("stall", [Stall(), Drip()], ids=["silent", "dripping"])
def test_a_late_answer_is_asked_for_again(serve: Serve, open_client: Open, stall: Stall | Drip) -> None:
    told: list[WaitEvent] = []
    server = serve(stall, published.VECTOR)
    client = open_client(server.url, timeout_s=0.5, on_wait=told.append)
    assert client.encode("org/m", HELLO)["dense"].shape == (2,)
    # Once, but for a machine so busy that it was late with the answer as well.
    assert {event.reason for event in told} == {"TIMED_OUT"}
    assert len(server.seen) == len(told) + 1


def test_a_late_answer_is_an_error_for_who_does_not_wait(serve: Serve, open_client: Open) -> None:
    with pytest.raises(errors.SIEConnectionError, match="timeout_s"):
        open_client(serve(Stall()).url, timeout_s=0.2).encode("org/m", HELLO, wait_for_capacity=False)


def test_nobody_listening_is_an_error_at_once_for_who_does_not_wait(open_client: Open) -> None:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{bound.getsockname()[1]}"
        with pytest.raises(errors.SIEConnectionError, match=address) as raised:
            open_client(f"http://{address}").encode("org/m", HELLO, wait_for_capacity=False)
        assert raised.value.code == "CONNECT_FAILED"


def test_a_server_that_comes_up_late_is_found(serve: Serve, open_client: Open) -> None:
    bound = socket.socket()
    bound.bind(("127.0.0.1", 0))
    url = f"http://127.0.0.1:{bound.getsockname()[1]}"
    told: list[WaitEvent] = []

    def start(event: WaitEvent) -> None:
        told.append(event)
        if len(told) == 1:
            serve(published.VECTOR, on=bound)

    assert open_client(url, on_wait=start).encode("org/m", HELLO)["dense"].shape == (2,)
    assert [event.reason for event in told] == ["CONNECT_FAILED"]


def test_a_host_that_does_not_exist_is_not_waited_for(open_client: Open) -> None:
    with pytest.raises(errors.SIEConnectionError) as raised:
        open_client("http://no-such-host.invalid").encode("org/m", HELLO, provision_timeout_s=3)
    assert raised.value.code in ("CONNECT_IMPOSSIBLE", "CONNECT_FAILED")  # resolvers without a network say "try again"


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_what_speaks_no_http_or_no_tls_is_not_waited_for(open_client: Open, scheme: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening, ThreadPoolExecutor(1) as threads:

        def answer() -> None:
            connection, _ = listening.accept()
            with connection:
                connection.recv(1 << 16)
                connection.sendall(b"SSH-2.0-none\r\n\r\n")

        answering = threads.submit(answer)
        with pytest.raises(errors.SIEConnectionError) as raised:
            open_client(f"{scheme}://127.0.0.1:{listening.getsockname()[1]}").encode("org/m", HELLO)
        answering.result(10)
    assert raised.value.code == "CONNECT_IMPOSSIBLE"
    assert "check host, port" in str(raised.value)


def test_both_clients_refuse_in_the_same_words(serve: Serve, open_client: Open) -> None:
    with pytest.raises(errors.RequestError) as raised:
        open_client(serve(published.BAD_ITEM_0_1).url).encode("org/m", HELLO)
    assert str(raised.value) == "POST /v1/encode/org/m: 400 INVALID_INPUT: items is empty"


def test_models_and_capacity_are_asked_for_as_json(serve: Serve, open_client: Open) -> None:
    model = published.said(200, {"name": "org/m", "dims": {"dense": 2}})
    server = serve(published.said(200, {"models": []}), model, READY)
    client = open_client(server.url)
    assert client.list_models() == []
    assert client.get_model("org/m")["dims"] == {"dense": 2}
    assert client.get_capacity(gpu="L4")["worker_count"] == 1
    assert [each.path for each in server.seen] == ["/v1/models", "/v1/models/org/m", "/health"]
    assert {each.headers["accept"] for each in server.seen} == {"application/json"}


def test_waiting_for_capacity_looks_or_with_a_model_asks(serve: Serve, open_client: Open) -> None:
    looking = serve(published.health(configured=["l4"]), READY)
    assert open_client(looking.url).wait_for_capacity("l4", poll_interval_s=0.05)["worker_count"] == 1
    assert [each.path for each in looking.seen] == ["/health", "/health"]
    asking = serve(STARTING, published.VECTOR, READY)
    assert open_client(asking.url).wait_for_capacity("l4", model="org/m")["worker_count"] == 1
    assert [each.path for each in asking.seen] == ["/v1/encode/org/m"] * 2 + ["/health"]


def test_a_distant_server_version_is_logged_once(
    serve: Serve, open_client: Open, caplog: pytest.LogCaptureFixture
) -> None:
    far = Reply(200, published.VECTOR.body, {**published.MSGPACK, "X-SIE-Server-Version": "0.10.1"})
    client = open_client(serve(far).url)
    with caplog.at_level(logging.WARNING, "sie_sdk"):
        client.encode("org/m", HELLO)
        client.encode("org/m", HELLO)
    assert [record.getMessage() for record in caplog.records if "0.10.1" in record.getMessage()] != []
    assert len(caplog.records) == 1


@pytest.mark.parametrize("version", ["0.1.10", "0.2.0", "unknown"])
def test_a_near_or_unknown_server_version_is_not(
    serve: Serve, open_client: Open, caplog: pytest.LogCaptureFixture, version: str
) -> None:
    near = Reply(200, published.VECTOR.body, {**published.MSGPACK, "X-SIE-Server-Version": version})
    with caplog.at_level(logging.WARNING, "sie_sdk"):
        open_client(serve(near).url).encode("org/m", HELLO)
    assert caplog.records == []


def test_a_connection_is_used_again(serve: Serve, open_client: Open) -> None:
    server = serve(published.VECTOR)
    client = open_client(server.url)
    before = threading.active_count()
    for _ in range(5):
        client.encode("org/m", HELLO)
    assert threading.active_count() <= before + 1  # the server's, one a connection


def test_a_client_shows_its_address_and_not_its_key(serve: Serve, open_client: Open) -> None:
    client = open_client(serve(published.VECTOR).url, api_key="hush")
    assert "127.0.0.1" in repr(client)
    assert "hush" not in repr(client)


def test_a_callback_that_raises_ends_the_call(serve: Serve, open_client: Open) -> None:
    def refuse(event: WaitEvent) -> None:
        raise KeyError(event.reason)

    with pytest.raises(KeyError, match="PROVISIONING"):
        open_client(serve(STARTING).url, on_wait=refuse).encode("org/m", HELLO)


def test_threads_share_one_client(serve: Serve) -> None:
    server = serve(published.VECTOR)
    with SIEClient(server.url, max_connections=2) as client, ThreadPoolExecutor(8) as pool:
        results = list(pool.map(lambda _: client.encode("org/m", HELLO), range(40)))
    assert all(result["dense"].shape == (2,) for result in results)
    assert len(server.seen) == 40


@settings(max_examples=12)
@given(
    st.lists(st.sampled_from([STARTING, STARTING_503, LOADING]), max_size=2),
    st.sampled_from(
        [
            published.VECTOR,
            published.encoded([]),
            published.BAD_ITEM_0_1,
            published.NO_TOKEN_0_1,
            published.LOAD_FAILED_0_10,
            published.NO_WORKERS_0_1,
            published.said(200, {"items": []}),
        ]
    ),
    st.booleans(),
)
def test_both_clients_come_to_the_same_end(waits: list[Step], last: Step, wait_for_capacity: bool) -> None:
    def outcome(kind: type[Threaded | OnALoop]) -> tuple[object, list[str], int]:
        told: list[WaitEvent] = []
        with serving(*waits, last) as server, kind(server.url, on_wait=told.append) as client:
            try:
                result: object = client.encode("org/m", HELLO, wait_for_capacity=wait_for_capacity)["dense"].tolist()
            except errors.SIEError as error:
                result = (type(error), str(error), error.code, error.status_code, error.retry_after)
            return result, [event.reason for event in told], len(server.seen)

    assert outcome(Threaded) == outcome(OnALoop)
