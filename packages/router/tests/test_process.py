import asyncio
import contextlib
import json
import re
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import httpx

from router_builders import MODEL, status
from router_fakes import Exchange, FakeWorker, eventually

MakeWorker = Callable[..., Awaitable[FakeWorker]]
COMMAND = str(Path(sys.executable).parent / "sie-router")
FAKES = Path(__file__).parent / "support" / "router_fakes.py"


@asynccontextmanager
async def process(*command: str) -> AsyncIterator[asyncio.subprocess.Process]:
    child = await asyncio.create_subprocess_exec(
        *command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    try:
        yield child
    finally:
        with contextlib.suppress(ProcessLookupError):
            child.kill()
        await child.communicate()


async def line(stream: asyncio.StreamReader | None, pattern: str) -> re.Match[str]:
    assert stream is not None
    async with asyncio.timeout(30):
        async for raw in stream:
            found = re.search(pattern, raw.decode())
            if found:
                return found
    raise AssertionError(f"the process ended without saying '{pattern}'")


async def healthy(client: httpx.AsyncClient, count: int) -> None:
    async with asyncio.timeout(30):
        while (await client.get("/readyz")).json().get("healthy_workers") != count:  # noqa: ASYNC110 - another process has no event
            await asyncio.sleep(0.01)


async def test_sigterm_finishes_what_was_begun_and_exits_with_zero(make_worker: MakeWorker) -> None:
    async def wait(exchange: Exchange) -> None:
        await release.wait()
        exchange.reply(200, b"done")

    release = asyncio.Event()
    worker = await make_worker(status("w", loaded=[MODEL]), wait)
    command = (COMMAND, "serve", "-h", "127.0.0.1", "-p", "0", "-w", worker.url, "--group", "l4:default", "--json-logs")
    async with process(*command) as router:
        port = (await line(router.stderr, r"running on http://127\.0\.0\.1:(\d+)"))[1]
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=30) as client:
            await healthy(client, 1)
            request = asyncio.create_task(client.post(f"/v1/encode/{MODEL}", content=b"{}"))
            await eventually(lambda: len(worker.seen) == 1)
            router.send_signal(signal.SIGTERM)
            await line(router.stderr, "draining")
            await line(router.stderr, "Waiting for connections")
            release.set()
            answer = await request
            assert (answer.status_code, answer.content) == (200, b"done")
        record = await line(router.stderr, "(.*sie_router.audit.*)")
        assert json.loads(record[1])["status"] == 200
        async with asyncio.timeout(20):
            assert await router.wait() == 0


async def test_a_router_that_ends_has_its_clients_leave_before_it_closes_their_connections() -> None:
    command = ("env", "SIE_ROUTER_DRAIN_S=60", COMMAND, "serve", "-h", "127.0.0.1", "-p", "0")
    async with process(*command) as router:
        port = (await line(router.stderr, r"running on http://127\.0\.0\.1:(\d+)"))[1]
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=30) as client, asyncio.timeout(40):
            assert "connection" not in (await client.get("/healthz")).headers
            router.send_signal(signal.SIGTERM)
            await line(router.stderr, "draining")
            while "connection" not in (answer := await client.get("/healthz")).headers:  # noqa: ASYNC110 - another process has no event
                await asyncio.sleep(0.05)
            assert (answer.status_code, answer.headers["connection"]) == (200, "close")


@asynccontextmanager
async def pair(*flags: str) -> AsyncIterator[tuple[asyncio.subprocess.Process, httpx.AsyncClient]]:
    """A worker with these flags, which works first, being the lower one, and a client of a router that has another."""
    async with (
        process(sys.executable, str(FAKES), "0", "worker-0", *flags) as one,
        process(sys.executable, str(FAKES), "0", "worker-1") as two,
    ):
        ports = [(await line(each.stdout, r"^(\d+)$"))[1] for each in (one, two)]
        urls = [flag for port in ports for flag in ("-w", f"http://127.0.0.1:{port}")]
        async with process(COMMAND, "serve", "-h", "127.0.0.1", "-p", "0", *urls) as router:
            port = (await line(router.stderr, r"running on http://127\.0\.0\.1:(\d+)"))[1]
            async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=30) as client:
                await healthy(client, 2)
                yield one, client


async def test_sigkill_of_a_worker_in_the_middle_of_requests_is_invisible() -> None:
    async with pair() as (one, client):
        stop = asyncio.Event()

        async def ask() -> list[int]:
            codes: list[int] = []
            while not stop.is_set() or not codes:
                codes.append((await client.post(f"/v1/encode/{MODEL}", content=b"x")).status_code)
            return codes

        clients = [asyncio.create_task(ask()) for _ in range(8)]
        await line(one.stdout, "request")
        one.kill()
        await one.wait()
        await healthy(client, 1)
        stop.set()
        codes = [code for task in clients for code in await task]
        assert set(codes) == {200}
        assert len(codes) >= 8


async def test_a_worker_that_hangs_in_the_middle_of_requests_is_invisible() -> None:
    async with pair("--delay-s", "60") as (one, client):
        clients = [asyncio.create_task(client.post(f"/v1/encode/{MODEL}", content=b"x")) for _ in range(8)]
        await line(one.stdout, "request")
        one.send_signal(signal.SIGSTOP)
        answers = await asyncio.gather(*clients)
        assert [(answer.status_code, answer.headers["x-sie-worker"]) for answer in answers] == [(200, "worker-1")] * 8
        one.send_signal(signal.SIGCONT)
        await healthy(client, 2)


async def test_a_setting_that_cannot_be_used_is_said_in_one_line() -> None:
    async with process(COMMAND, "serve", "--group", ":x") as router:
        said, complaint = await router.communicate()
        assert (router.returncode, said) == (2, b"")
        assert complaint.decode().startswith("sie-router: group ':x' names no machine profile")


async def test_the_version_is_printed() -> None:
    async with process(COMMAND, "version") as router:
        said, _ = await router.communicate()
        assert (router.returncode, said) == (0, b"0.1.10\n")
