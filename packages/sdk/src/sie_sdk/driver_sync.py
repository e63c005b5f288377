"""Runs flows for threads: a call blocks its caller."""

import threading
from collections.abc import Generator
from typing import TYPE_CHECKING, Any

from sie_sdk import leases
from sie_sdk.drivers import Clock, SkewWarning, SyncClock, closed_while, tell, tell_lease
from sie_sdk.errors import SIEConnectionError
from sie_sdk.leases import LeaseBook
from sie_sdk.messages import Effect, OnWait, Parallel, Park, Pause, Plan, Resume, Send, Sleep, T
from sie_sdk.settings import Settings
from sie_sdk.single_flight import SingleFlight
from sie_sdk.types import StatusFrame

if TYPE_CHECKING:
    import httpx


class Link:
    """A client's way to its server, for any number of threads. `book` holds the pools that it keeps."""

    clock: SyncClock = Clock(threading.Event.wait)

    def __init__(self, settings: Settings, on_wait: OnWait | None, http_client: "httpx.Client | None" = None) -> None:
        from sie_sdk.transport_sync import SyncTransport  # noqa: PLC0415 - httpx is half of the import time of the SDK

        self._settings = settings
        self._transport = SyncTransport(settings, http_client)
        self._on_wait = on_wait
        self._skew = SkewWarning()
        self._closed = threading.Event()
        self._flights = SingleFlight(settings.max_connections // 2, threading.Event)
        self._lock = threading.Lock()  # guards the two below
        self._keeper: threading.Thread | None = None
        self._watches: set[Any] = set()  # closable
        self.book = LeaseBook(self._begin_keeping, tell_lease)

    def drive(self, plan: Plan[T], given_up: threading.Event | None = None) -> T:
        """Run a call to its end and return its result; once it is `given_up`, it ends with SIEConnectionError."""
        flow = plan(self.clock.now())
        happened: Resume | None = None
        while True:
            if given_up is not None and given_up.is_set():
                raise closed_while("the call that it is a part of was interrupted")
            try:
                effect = next(flow) if happened is None else flow.send(happened)
            except StopIteration as stop:
                result: T = stop.value
                return result
            happened = self._perform(effect)

    def frames(self, path: str) -> Generator[StatusFrame]:
        """The status frames of this path, until the caller stops or the client is closed."""
        from sie_sdk.watch_sync import Watch  # noqa: PLC0415 - websockets is an extra

        watch = Watch(self._settings, path, self._closed, self._on_wait, self.clock)
        with self._lock:
            self._watches.add(watch)
        try:
            yield from watch.frames()
        finally:
            watch.close()
            with self._lock:
                self._watches.discard(watch)

    def close(self) -> None:
        """End waits and requests of all threads with SIEConnectionError, and close all connections."""
        with self._lock:
            self._closed.set()
            keeper, watches = self._keeper, tuple(self._watches)
        self._flights.close()
        self._transport.close()
        for watch in watches:
            watch.close()
        if keeper is not None and keeper is not threading.current_thread():
            keeper.join()

    def _perform(self, effect: Effect) -> Resume:
        match effect:
            case Send(request, timeout_s):
                return self.clock.resume(self._skew.seen(self._transport.send(request, timeout_s)))
            case Sleep(event):
                tell(self._on_wait, event)
                self._wait(event.delay_s, f"a call waited because of {event.reason}")
            case Park():
                return self._park(effect)
            case Pause(delay_s):
                self._wait(delay_s, "it kept its pools")
            case Parallel():
                return self.clock.resume(results=self._all(effect))
        return self.clock.resume()

    def _park(self, effect: Park) -> Resume:
        with self._flights.join(effect.key) as member:
            if member.is_leader:
                tell(self._on_wait, effect.event)
                outcome = self._skew.seen(self._transport.send(effect.send.request, effect.send.timeout_s))
                member.came(outcome)
                return self.clock.resume(outcome)
            event = effect.instead.event
            tell(self._on_wait, event)
            if not self._closed.is_set():
                self.clock.wait(member.news, event.delay_s)  # which closing the client rings as well
        if self._closed.is_set():
            raise closed_while(f"a call waited because of {event.reason}")
        return self.clock.resume()

    def _wait(self, delay_s: float, what: str) -> None:
        if self.clock.wait(self._closed, delay_s):
            raise closed_while(what)

    def _all(self, effect: Parallel) -> tuple[Any, ...]:
        from sie_sdk.parts_sync import Parts  # noqa: PLC0415 - short lists need no threads

        parts = Parts(effect, self.drive)
        try:
            return parts.run()
        except BaseException:  # Ctrl-C among them
            parts.give_up()
            self._transport.interrupt(parts.threads)
            raise

    def _begin_keeping(self) -> None:
        with self._lock:
            if self._keeper is None and not self._closed.is_set():
                self._keeper = threading.Thread(target=self._keep, name="sie-sdk-leases", daemon=True)
                self._keeper.start()

    def _keep(self) -> None:
        try:
            self.drive(leases.keep(self.book, self._settings.question_terms()))
        except SIEConnectionError:
            return  # closed
