import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from router_fakes import eventually
from sie_router.control.discovery import Combined, Discovery, Endpoints
from sie_router.control.discovery_dns import DnsDiscovery, resolve
from sie_router.control.discovery_static import StaticDiscovery

A, B = "http://a:1", "http://b:1"


@asynccontextmanager
async def watching(discovery: Discovery) -> AsyncIterator[Callable[[], Endpoints | None]]:
    """The latest endpoints of a discovery."""
    seen: list[Endpoints | None] = [None]

    async def run() -> None:
        async for seen[0] in discovery.watch():
            pass

    task = asyncio.create_task(run())
    try:
        yield lambda: seen[0]
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


class Leaving:
    """A source by which one worker leaves."""

    async def watch(self) -> AsyncIterator[Endpoints]:
        yield Endpoints(leaving=frozenset({A}))


class Broken:
    """A source that breaks once, and then knows a worker."""

    def __init__(self) -> None:
        self.attempts = 0

    async def watch(self) -> AsyncIterator[Endpoints]:
        self.attempts += 1
        if self.attempts == 1:
            raise RuntimeError("broken")
        yield Endpoints(frozenset({B}))


async def test_several_sources_are_one_set() -> None:
    async with watching(Combined([StaticDiscovery([A]), StaticDiscovery([B])], lambda: 0)) as latest:
        await eventually(lambda: latest() == Endpoints(frozenset({A, B})))


async def test_who_leaves_by_one_source_leaves() -> None:
    async with watching(Combined([StaticDiscovery([A, B]), Leaving()], lambda: 0)) as latest:
        await eventually(lambda: latest() == Endpoints(frozenset({B}), frozenset({A})))


async def test_a_source_that_breaks_is_begun_again_and_hinders_nobody() -> None:
    async with watching(Combined([Broken(), StaticDiscovery([A])], lambda: 0)) as latest:
        await eventually(lambda: latest() == Endpoints(frozenset({A}), is_whole=False))
        await eventually(lambda: latest() == Endpoints(frozenset({A, B})))


async def test_a_name_resolves_to_every_address_of_one_family() -> None:
    assert await resolve("localhost", 81) == {"http://127.0.0.1:81"}
    assert await resolve("::1", 81) == {"http://[::1]:81"}


async def test_a_name_of_nobody_is_an_empty_set() -> None:
    assert await resolve("nobody.invalid", 81) == frozenset()


class Resolver:
    """Answers with what it was told; an OSError is raised."""

    def __init__(self, *answers: set[str] | OSError) -> None:
        self.answers = list(answers)
        self.asked: list[tuple[str, int]] = []

    async def __call__(self, host: str, port: int) -> frozenset[str]:
        self.asked.append((host, port))
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, OSError):
            raise answer
        return frozenset(answer)


async def test_a_name_is_asked_again_and_its_last_answer_outlives_an_outage() -> None:
    resolver = Resolver({A}, OSError("no server"), {A}, {A, B}, OSError("no server"))
    discovery = DnsDiscovery("dns+http://workers:81", lambda: 0, every_s=0.002, resolve=resolver)
    async with watching(discovery) as latest:
        await eventually(lambda: latest() == Endpoints(frozenset({A, B})))
        await eventually(lambda: len(resolver.asked) > 6)
        assert latest() == Endpoints(frozenset({A, B}))
    assert set(resolver.asked) == {("workers", 81)}
