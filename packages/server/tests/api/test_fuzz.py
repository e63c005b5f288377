"""Whatever is sent, the worker answers in its own words: no 500, no hang, no growth."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from openapi_fuzz import ANSWER_S, FUZZ, Requests, check, check_sent, requests_of
from served_worker import Process, process, write_catalog
from sie_protocol.headers import EMBEDDINGS, JSON, MSGPACK, RERANK, operation_path
from sie_server.core.options import REQUEST_OPTIONS, RUNTIME_OPTIONS

M, THREE = "org/hash", "org/three"


@pytest.fixture(scope="module")
def worker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Process]:
    folder = tmp_path_factory.mktemp("catalog")
    three = {"encode": {kind: {"dim": 8} for kind in ("dense", "sparse", "multivector")}}
    write_catalog(folder, {M: {"max_sequence_length": 16}, THREE: {"tasks": three}})
    with process("--models-dir", str(folder / "models"), "--bundles-dir", str(folder / "bundles")) as running:
        with running.client() as http:
            running.encode(http, M, "load it")
            running.encode(http, THREE, "load it")
        yield running


@pytest.fixture(scope="module")
def documented(worker: Process) -> Requests:
    return requests_of(worker.url, [operation_path(name, "{model}") for name in ("encode", "score")])


@given(data=st.data())
@FUZZ
def test_no_request_that_fits_the_openapi_document_is_answered_with_a_bug(
    documented: Requests, data: st.DataObject
) -> None:
    case = data.draw(documented)
    if "model" in case.path_parameters:
        case.path_parameters["model"] = M
    check_sent(case)


keys = st.sampled_from(["items", "params", "query", "text", "id", "images", "options", "output_types", "output_dtype"])
scalars = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats()
    | st.text(max_size=40)
    | st.binary(max_size=40)
)
values = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(keys | st.text(max_size=8) | st.binary(max_size=8), inner, max_size=5)
    ),
    max_leaves=20,
)
requests = values | st.fixed_dictionaries({"items": values}, optional={"params": values, "query": values})


@pytest.fixture(scope="module")
def http(worker: Process) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=worker.url, timeout=ANSWER_S) as client:
        yield client


@given(operation=st.sampled_from(["encode", "score", "extract"]), body=requests)
@FUZZ
def test_no_msgpack_value_is_answered_with_a_bug(http: httpx.Client, operation: str, body: Any) -> None:
    sent = msgspec.msgpack.encode(body)
    reply = http.post(operation_path(operation, M), content=sent, headers={"content-type": MSGPACK})
    check(reply.status_code, reply.headers, reply.content)


numbers = st.integers(-(10**400), 10**400) | st.floats(allow_nan=False, allow_infinity=False) | st.booleans()
wild = st.recursive(st.none() | numbers | st.text(max_size=20), lambda inner: st.lists(inner, max_size=4), max_leaves=6)
options = st.dictionaries(
    st.sampled_from(sorted(REQUEST_OPTIONS | RUNTIME_OPTIONS)) | st.text(max_size=5), wild, max_size=3
)
hybrid = st.lists(numbers, min_size=3, max_size=3).map(lambda own: {"score_mode": "hybrid", "score_weights": own})


@given(operation=st.sampled_from(["encode", "score"]), asked=options | hybrid)
@FUZZ
def test_no_option_is_answered_with_a_bug(http: httpx.Client, operation: str, asked: Any) -> None:
    item = {"text": "a"}
    body = {"items": [item], "params": {"options": asked}, "query": item, "options": asked}
    reply = http.post(operation_path(operation, THREE), content=json.dumps(body), headers={"content-type": JSON})
    check(reply.status_code, reply.headers, reply.content)


@given(field=st.sampled_from(["input", "dimensions", "top_n", "documents", "encoding_format", "options"]), value=wild)
@FUZZ
def test_no_field_of_other_services_routes_is_answered_with_a_bug(http: httpx.Client, field: str, value: Any) -> None:
    body = {"model": M, "input": "a", "query": "a", "documents": ["b"], field: value}
    for path in (EMBEDDINGS, RERANK):
        reply = http.post(path, content=json.dumps(body), headers={"content-type": JSON})
        check(reply.status_code, reply.headers, reply.content)


@given(media=st.sampled_from([MSGPACK, JSON, "text/plain", ""]), body=st.binary(max_size=200))
@FUZZ
def test_no_bytes_are_answered_with_a_bug(http: httpx.Client, media: str, body: bytes) -> None:
    reply = http.post(operation_path("encode", M), content=body, headers={"content-type": media})
    check(reply.status_code, reply.headers, reply.content)


# What msgpack-numpy unpickles: an array of kind "O". This pickle would create a file if anything ever loaded it.
def pickled_array(path: Path) -> dict[bytes, Any]:
    call = f"cbuiltins\nopen\n(S'{path}'\nS'w'\ntR.".encode()
    return {b"nd": True, b"type": "|O", b"kind": b"O", b"shape": [1], b"data": call}


@pytest.mark.parametrize("place", ["metadata", "text", "options"])
def test_a_pickle_in_an_array_is_never_loaded(http: httpx.Client, tmp_path: Path, place: str) -> None:
    trap = tmp_path / "loaded"
    array = pickled_array(trap)
    item: dict[str, Any] = {"text": "hello"}
    params: dict[str, Any] = {}
    (params if place == "options" else item)[place] = {"x": array} if place != "text" else array
    body = msgspec.msgpack.encode({"items": [item], "params": params})
    reply = http.post(operation_path("encode", M), content=body, headers={"content-type": MSGPACK})
    check(reply.status_code, reply.headers, reply.content)
    assert not trap.exists()


def resident_bytes(worker: Process) -> int:
    found = re.search(r"VmRSS:\s+(\d+) kB", Path(f"/proc/{worker.popen.pid}/status").read_text())
    assert found is not None
    return int(found[1]) * 1024


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads the memory of a process from /proc")
def test_refused_requests_leave_no_memory_behind(worker: Process, http: httpx.Client) -> None:
    def refused(count: int) -> None:
        for number in range(count):
            body = msgspec.msgpack.encode({"items": [{"text": number}], "padding": "x" * 50_000, f"k{number}": 1})
            assert http.post(operation_path("encode", f"no/{number}"), content=body).status_code == 404
            head = {"content-type": MSGPACK}
            assert http.post(operation_path("encode", M), content=body, headers=head).status_code == 400

    refused(100)
    before = resident_bytes(worker)
    refused(200)
    assert resident_bytes(worker) - before < 2 * 1024 * 1024
