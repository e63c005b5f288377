"""Whatever is sent, the router answers in its own words: no 500, no hang, no growth."""

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import httpx
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from openapi_fuzz import ANSWER_S, FUZZ, Requests, check, check_sent, requests_of
from router_builders import MODEL, status
from router_fakes import FakeWorker, Served, eventually, served, settings
from sie_protocol.compat import COMPAT_PATHS


@contextmanager
def in_thread() -> Iterator[Served]:
    """A router and a worker on an event loop of their own, for tests that block."""
    ready, over = threading.Event(), asyncio.Event()
    found: list[Served] = []
    loops: list[asyncio.AbstractEventLoop] = []

    async def run() -> None:
        loops.append(asyncio.get_running_loop())
        worker = await FakeWorker(status("w", loaded=[MODEL])).start()
        async with served(settings(worker, max_wait_s=0)) as router:
            await eventually(lambda: router.healthy() == 1)
            found.append(router)
            ready.set()
            await over.wait()
        await worker.close()

    thread = threading.Thread(target=lambda: asyncio.run(run()))
    thread.start()
    try:
        assert ready.wait(ANSWER_S)
        yield found[0]
    finally:
        loops[0].call_soon_threadsafe(over.set)
        thread.join()


@pytest.fixture(scope="module")
def router() -> Iterator[Served]:
    with in_thread() as running:
        yield running


@pytest.fixture(scope="module")
def http(router: Served) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=router.url, timeout=ANSWER_S) as client:
        yield client


@pytest.fixture(scope="module")
def documented(router: Served) -> Requests:
    return requests_of(router.url, ["/v1/encode/{model}", "/v1/pools", *COMPAT_PATHS])


@given(data=st.data())
@FUZZ
def test_no_request_that_fits_the_openapi_document_is_answered_with_a_bug(
    documented: Requests, data: st.DataObject
) -> None:
    check_sent(data.draw(documented))


visible = st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), max_size=30)
values = st.binary(max_size=30).map(lambda text: bytes(each for each in text if each >= 0x20 and each != 0x7F).strip())
prefixes = ["/", "/v1/encode/", "/v1/score/", "/v1/pools/", "/v1/models/", "/v1/embeddings", "/v2/rerank", "/health"]
names = ["x-sie-machine-profile", "x-sie-pool", "x-sie-timeout", "x-sie-wait", "x-sie-attempt", "prefer",
         "x-request-id", "x-sie-sdk-version", "authorization", "content-type", "accept", "connection",
         "traceparent"]  # fmt: skip


@given(
    method=st.sampled_from(["GET", "POST", "PUT", "DELETE", "HEAD", "OPTIONS", "PATCH"]),
    prefix=st.sampled_from(prefixes),
    rest=visible,
    headers=st.dictionaries(st.sampled_from(names), values, max_size=5),
    body=st.binary(max_size=200) | st.sampled_from([b"{}", b'{"model": "x"}', b'{"model": null}', b'{"name": []}']),
)
@example(method="POST", prefix="/v1/encode/", rest="%00%ff%2e%2e//", headers={"x-sie-pool": b"\xff/"}, body=b"")
@FUZZ
def test_no_path_header_or_body_is_answered_with_a_bug(
    http: httpx.Client, method: str, prefix: str, rest: str, headers: dict[str, bytes], body: bytes
) -> None:
    try:
        url = httpx.URL(f"{http.base_url}{prefix}{rest}")
    except httpx.InvalidURL:
        return
    reply = http.request(method, url, headers=[(name.encode(), value) for name, value in headers.items()], content=body)
    if method != "HEAD":
        check(reply.status_code, reply.headers, reply.content)


def series(http: httpx.Client) -> set[str]:
    return {line.rsplit(" ", 1)[0] for line in http.get("/metrics").text.splitlines() if not line.startswith("#")}


def test_no_caller_can_make_series(http: httpx.Client) -> None:
    def send(salt: str) -> None:
        for path in (f"/v1/encode/{salt}", f"/v1/{salt}/x", "/v1/embeddings"):
            headers = {"x-sie-machine-profile": salt, "x-sie-sdk-version": salt, "prefer": "wait=1"}
            http.post(path, headers=headers, json={"model": salt})
            http.post(path, headers={"x-sie-pool": salt}, json={"model": salt})
            http.post(path, json={"model": salt})

    send("first")
    before = series(http)
    for number in range(20):
        send(f"salt-{number}")
    after = series(http)
    assert after == before
    assert not any("salt" in each or "first" in each for each in after)
