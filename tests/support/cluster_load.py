"""Requests against a cluster, and when what happened: for tests that watch a cluster change."""

import threading
import time
from collections.abc import Callable, Mapping
from http import HTTPStatus
from types import TracebackType
from typing import Final, Self

import httpx

from lab.api import Refused
from sie_protocol.headers import MACHINE_PROFILE, POOL, WORKER
from sie_sdk.types import Item

LOOK_EVERY_S: Final = 0.1
ATTEMPT_S: Final = 60.0


class Timeline:
    """Seconds since it began, of claims that came true one after the other, watched by a thread, and of marks."""

    def __init__(self) -> None:
        self.start()
        self.seconds: dict[str, float] = {}
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stop.set()
        if self._thread is not None:
            self._thread.join()

    def start(self) -> None:
        """Count from now on."""
        self._began = time.monotonic()

    def watch(self, claims: Mapping[str, Callable[[], bool]]) -> None:
        """Note when each comes true, each after the one before it."""
        self._thread = threading.Thread(target=self._look, args=(dict(claims),), daemon=True)
        self._thread.start()

    def mark(self, what: str) -> None:
        """Now."""
        self.seconds[what] = time.monotonic() - self._began

    def table(self) -> str:
        """One line each, in order of time."""
        in_order = sorted(self.seconds.items(), key=lambda each: each[1])
        return "\n".join(f"  {seconds:6.1f} s  {what}" for what, seconds in in_order)

    def _look(self, claims: dict[str, Callable[[], bool]]) -> None:
        for what, claim in claims.items():
            while not _holds(claim):
                if self._stop.wait(LOOK_EVERY_S):
                    return
            self.mark(what)


def _holds(claim: Callable[[], bool]) -> bool:
    try:
        return claim()
    except (httpx.HTTPError, Refused):
        return False


class Load:
    """Threads that ask for vectors one after the other until the block ends, and never try again by themselves."""

    def __init__(
        self,
        url: str,
        model: str,
        item: Item,
        *,
        at_once: int,
        profile: str,
        pool: str | None = None,
        every_s: float = 0.0,
    ) -> None:
        self._url = f"{url}/v1/encode/{model}"
        self._body = {"items": [item]}
        self._headers = {MACHINE_PROFILE: profile} | ({POOL: pool} if pool else {})
        self._every_s = every_s
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._ask, daemon=True) for _ in range(at_once)]
        self.answered = 0
        self.failures: list[str] = []
        self.workers: set[str] = set()
        self._lock = threading.Lock()

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _ask(self) -> None:
        with httpx.Client(trust_env=False, timeout=ATTEMPT_S, headers=self._headers) as client:
            while not self._stop.wait(self._every_s):
                try:
                    answer = client.post(self._url, json=self._body)
                except httpx.HTTPError as error:
                    self._note(repr(error), None)
                else:
                    failure = None if answer.status_code == HTTPStatus.OK else f"{answer.status_code} {answer.text}"
                    self._note(failure, answer.headers.get(WORKER))

    def _note(self, failure: str | None, worker: str | None) -> None:
        with self._lock:
            if failure is None:
                self.answered += 1
                if worker:
                    self.workers.add(worker)
            else:
                self.failures.append(failure)
