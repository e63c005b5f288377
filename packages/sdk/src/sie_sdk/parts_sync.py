"""Runs the parts of one call in threads that nobody has to wait for: Ctrl-C is heard now, not with the last answer."""

import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any

from sie_sdk.errors import SIEError
from sie_sdk.messages import Parallel, Plan

Drive = Callable[[Plan[Any], threading.Event], Any]


class Parts:
    """One `Parallel`. `drive` runs a plan, and ends it early once the event that it is given is set."""

    def __init__(self, effect: Parallel, drive: Drive) -> None:
        self._effect = effect
        self._drive = drive
        self._results: list[Any] = [None] * len(effect.plans)
        self._left = iter(range(len(effect.plans)))
        self._lock = threading.Lock()  # guards the one above
        self._over = threading.Event()  # no further part begins
        self._given_up = threading.Event()  # nor does any go on
        self._ended = SimpleQueue[int | BaseException | None]()  # parts with a result, bugs, threads without more to do
        self.threads = [
            threading.Thread(target=self._work, name=f"sie-sdk-part_{number}", daemon=True)
            for number in range(min(effect.limit, len(effect.plans)))
        ]

    def run(self) -> tuple[Any, ...]:
        """What became of each part, in order; see `Parallel`.

        Raises:
            BaseException: what `on_done` raised, or what a part raised that is no `SIEError`.
        """
        for thread in self.threads:
            thread.start()
        at_work = len(self.threads)
        while at_work:
            match self._ended.get():
                case None:
                    at_work -= 1
                case int(at):
                    self._effect.on_done(at)
                case error:
                    raise error
        return tuple(self._results)

    def give_up(self) -> None:
        """The caller is gone: parts end with their next step, threads with their part."""
        self._over.set()
        self._given_up.set()

    def _work(self) -> None:
        try:
            while (at := self._next()) is not None:
                self._part(at)
        except BaseException as error:  # noqa: BLE001 - handed on to the caller
            self._ended.put(error)
        self._ended.put(None)

    def _part(self, at: int) -> None:
        try:
            self._results[at] = self._drive(self._effect.plans[at], self._given_up)
        except SIEError as error:
            self._results[at] = error
            self._over.set()
        else:
            self._ended.put(at)

    def _next(self) -> int | None:
        with self._lock:
            return None if self._over.is_set() else next(self._left, None)
