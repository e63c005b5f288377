"""What a router may do in a cluster: exactly what it needs."""

import yaml

from kube_cluster import PROFILE, ROLE, Site, Worker
from lab.audit import rights
from lab.daemon import wait_until


def test_the_role_allows_exactly_what_routers_ask_for(site: Site, workers: list[Worker]) -> None:
    router = site.start_router()
    site.add(workers[0])
    wait_until(lambda: router.workers() == {workers[0].url})
    pool = {"name": "tenant", "gpus": {PROFILE: 1}}
    for path, body in (("", pool), ("", {**pool, "minimum_worker_count": 1}), ("/tenant/renew", {})):
        router.http.post(f"/v1/pools{path}", json=body).raise_for_status()
    router.http.delete("/v1/pools/tenant").raise_for_status()

    asked = site.kubernetes.asked_by(site.account)
    assert not {each.right for each in asked if not each.was_allowed}
    assert {each.right for each in asked} == rights(yaml.safe_load(ROLE.read_text())["rules"])
