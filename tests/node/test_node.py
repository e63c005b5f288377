"""The harness itself: pods run, and the cluster's own controllers say so."""

from typing import Any

from lab.daemon import wait_until
from lab.node import PAUSE_IMAGE, Cluster

LABELS = {"app": "sleeper"}
DEPLOYMENTS = "/apis/apps/v1/namespaces/default/deployments"
SLICES = "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices"
SERVICES = "/api/v1/namespaces/default/services"


def deployment(replicas: int) -> dict[str, Any]:
    container = {"name": "sleeper", "image": PAUSE_IMAGE, "imagePullPolicy": "Never"}
    template = {"metadata": {"labels": LABELS}, "spec": {"containers": [container]}}
    spec = {"replicas": replicas, "selector": {"matchLabels": LABELS}, "template": template}
    return {"metadata": {"name": "sleeper"}, "spec": spec}


def ready_addresses(cluster: Cluster) -> set[str]:
    slices = cluster.plane.admin.get(SLICES, labelSelector="kubernetes.io/service-name=sleeper")["items"]
    endpoints = [endpoint for each in slices for endpoint in each["endpoints"] or ()]
    return {endpoint["addresses"][0] for endpoint in endpoints if endpoint["conditions"]["ready"]}


def test_pods_of_a_deployment_become_endpoints_of_its_service_and_leave_again(cluster: Cluster) -> None:
    api = cluster.plane.admin
    api.create(SERVICES, {"metadata": {"name": "sleeper"}, "spec": {"selector": LABELS, "ports": [{"port": 80}]}})
    api.create(DEPLOYMENTS, deployment(2))
    wait_until(lambda: len(ready_addresses(cluster)) == 2)
    assert all(address.startswith("10.244.") for address in ready_addresses(cluster))
    api.patch(f"{DEPLOYMENTS}/sleeper", {"spec": {"replicas": 0}})
    wait_until(lambda: not ready_addresses(cluster))
