"""Routers find their workers through the API: at once, and through its outages."""

import time
from collections.abc import Callable

from kube_cluster import Router, Site, Worker
from lab.audit import Asked, Right
from lab.daemon import wait_until

AT_ONCE_S = 1.0  # from the API's answer to the write until a router routes by it
LIST = Asked(Right("discovery.k8s.io", "endpointslices", "list"), was_allowed=True)
TRIES = 10  # a busy machine may be late by itself at any time, but not each time
SOON_S = 20.0  # after an outage: no longer than the longest pause between two tries, and a start of the API


def wait_for(routers: list[Router], *expected: Worker) -> float:
    """Wait until each router has exactly these workers; the seconds it took."""
    urls, began = {worker.url for worker in expected}, time.monotonic()
    wait_until(lambda: all(router.workers() == urls for router in routers), SOON_S)
    return time.monotonic() - began


def is_at_once(seconds: Callable[[], float]) -> bool:
    """True when this takes no longer than `AT_ONCE_S` in one of some tries."""
    return any(seconds() < AT_ONCE_S for _ in range(TRIES))


def test_a_change_of_the_endpoints_reaches_every_router_at_once(site: Site, workers: list[Worker]) -> None:
    routers = [site.start_router(), site.start_router()]
    site.add(workers[0])
    wait_for(routers, workers[0])  # each has begun to watch

    def there_and_back_s() -> float:
        site.add(workers[1])
        comes_s = wait_for(routers, *workers)
        site.remove(workers[1])
        return max(comes_s, wait_for(routers, workers[0]))

    assert is_at_once(there_and_back_s)
    site.add(workers[1])
    site.remove(workers[0])
    wait_for(routers, workers[1])
    wait_until(lambda: routers[0].encode() == routers[1].encode() == 200)


def test_a_terminating_worker_gets_no_more_requests(site: Site, workers: list[Worker]) -> None:
    router = site.start_router()
    site.add(workers[0])

    def terminated_s() -> float:
        site.add(workers[1])
        wait_for([router], *workers)
        site.terminate(workers[1])
        took_s = wait_for([router], workers[0])
        site.remove(workers[1])
        return took_s

    assert is_at_once(terminated_s)


def test_an_outage_of_the_api_stops_nothing_and_its_end_catches_up(site: Site, workers: list[Worker]) -> None:
    routers = [site.start_router(), site.start_router()]
    site.add(workers[0])
    wait_for(routers, workers[0])
    wait_until(lambda: all(router.encode() == 200 for router in routers))
    site.kubernetes.stop_api(crash=True)
    late = site.start_router()  # an API that is away must not keep a router from starting
    assert [router.encode() for router in routers] == [200, 200]
    site.kubernetes.start_api()
    site.remove(workers[0])
    site.add(workers[1])
    wait_for([*routers, late], workers[1])


def test_what_happened_before_a_compaction_is_not_missed(site: Site, workers: list[Worker]) -> None:
    router, plane = site.start_router(), site.kubernetes
    site.add(workers[0])
    wait_for([router], workers[0])
    listed = plane.asked_by(site.account).count(LIST)
    router.daemon.pause()
    plane.restart_api()  # cuts the router's watch, so that nothing of what follows waits in its socket
    site.remove(workers[0])
    site.add(workers[1])
    plane.etcd.compact()
    plane.restart_api()  # now the API itself has forgotten what a watch would have to tell
    router.daemon.resume()
    wait_for([router], workers[1])
    assert plane.asked_by(site.account).count(LIST) == listed + 1  # because its watch was answered with 410
