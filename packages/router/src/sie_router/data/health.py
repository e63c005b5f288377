"""Remembers how the requests to each worker ended. Silent until a breaker changes its phase."""

from collections.abc import Callable, Mapping

from sie_router.core.events import WorkerJudged
from sie_router.core.fleet import Group, Worker
from sie_router.core.health import HEALTHY, Health, Phase, Verdict, judged, probed

Publish = Callable[[WorkerJudged], None]


class OutlierDetector:
    """Only the forwarder calls `sent` and `report`. A worker that never fails is not in it.

    `ejections` counts how often a breaker opened, by configured group. `clock` is monotonic time in seconds, `draw`
    uniform in [0, 1).
    """

    def __init__(self, publish: Publish, clock: Callable[[], float], draw: Callable[[], float]) -> None:
        self._publish = publish
        self._clock = clock
        self._draw = draw
        self._known: dict[str, tuple[str, Health]] = {}
        self.ejections: dict[Group, int] = {}

    def sent(self, worker: Worker) -> None:
        """A request was sent to this worker."""
        if worker.health.phase is Phase.HALF_OPEN:
            self._put(worker, worker.health, probed(worker.health))

    def report(self, worker: Worker, said: Verdict) -> None:
        """A request to this worker ended."""
        name, before = self._known.get(worker.url, (worker.name, HEALTHY))
        if before is HEALTHY and said is not Verdict.BAD:
            return
        if name != worker.name:
            before = HEALTHY  # another worker had this address
        self._put(worker, before, judged(before, said, self._clock(), self._draw()))

    def forget(self, workers: Mapping[str, Worker]) -> None:
        """Drop every worker that is not among these, and every one that went and came back as a new one."""
        for url, (_, health) in tuple(self._known.items()):
            worker = workers.get(url)
            is_new = worker is not None and worker.health.phase is Phase.CLOSED is not health.phase
            if worker is None or is_new:
                del self._known[url]

    def _put(self, worker: Worker, before: Health, after: Health) -> None:
        if after is HEALTHY:
            self._known.pop(worker.url, None)
        else:
            self._known[worker.url] = worker.name, after
        if after.phase is before.phase:
            return
        if after.phase is Phase.OPEN:
            self.ejections[worker.group] = self.ejections.get(worker.group, 0) + 1
        self._publish(WorkerJudged(worker.url, after))
