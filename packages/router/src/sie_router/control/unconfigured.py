"""Says which workers no request for a machine profile will ever reach, because they are of no configured group."""

import logging
from collections.abc import Callable

from sie_router.core.fleet import OTHER, Fleet, Worker

logger = logging.getLogger(__name__)


class UnconfiguredWorkers:
    """Warns once of each worker, and again when it says something else."""

    def __init__(self, snapshot: Callable[[], Fleet]) -> None:
        self._snapshot = snapshot
        self._told: frozenset[tuple[str, str, str]] = frozenset()

    def look(self) -> None:
        """Look at the workers that serve now."""
        fleet = self._snapshot()
        found = {_key(worker): worker for worker in fleet.workers.values() if _is_unconfigured(worker)}
        for key in found.keys() - self._told if fleet.configured else ():
            worker = found[key]
            groups = ", ".join(f"{group.profile}:{group.bundle}" for group in fleet.configured)
            logger.warning(
                "worker '%s' (%s) says that its machine profile is '%s' and its bundle '%s', which is no configured "
                "group (%s): requests for a machine profile will not reach it; set SIE_MACHINE_PROFILE and SIE_BUNDLE "
                "of that worker, or SIE_ROUTER_GROUPS of this router",
                worker.name,
                worker.url,
                worker.profile,
                worker.bundle,
                groups,
            )
        gone = {key for key in self._told if key[0] not in fleet.workers}
        self._told = frozenset((self._told - gone) | found.keys())


def _is_unconfigured(worker: Worker) -> bool:
    return worker.is_healthy and worker.group == OTHER


def _key(worker: Worker) -> tuple[str, str, str]:
    return worker.url, worker.profile, worker.bundle
