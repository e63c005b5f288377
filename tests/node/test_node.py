"""The harness itself: pods run, find each other by name, and the cluster's own controllers say so."""

from typing import Any

import pytest

from lab.daemon import wait_until
from lab.images import ROUTER
from lab.node import PAUSE_IMAGE
from lab.whole import Lab

LABELS = {"app": "sleeper"}
DEPLOYMENTS = "/apis/apps/v1/namespaces/default/deployments"
SLICES = "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices"
SERVICES = "/api/v1/namespaces/default/services"
LOOK_UP = "import socket; print(socket.gethostbyname('sleeper'), socket.gethostbyname('kubernetes.default.svc'))"


def deployment(replicas: int) -> dict[str, Any]:
    container = {"name": "sleeper", "image": PAUSE_IMAGE, "imagePullPolicy": "Never"}
    template = {"metadata": {"labels": LABELS}, "spec": {"containers": [container]}}
    spec = {"replicas": replicas, "selector": {"matchLabels": LABELS}, "template": template}
    return {"metadata": {"name": "sleeper"}, "spec": spec}


def ready_addresses(lab: Lab) -> set[str]:
    slices = lab.api.get(SLICES, labelSelector="kubernetes.io/service-name=sleeper")["items"]
    endpoints = [endpoint for each in slices for endpoint in each["endpoints"] or ()]
    return {endpoint["addresses"][0] for endpoint in endpoints if endpoint["conditions"]["ready"]}


@pytest.mark.timeout(600)
def test_pods_of_a_deployment_become_endpoints_of_its_service_with_a_name_and_leave_again(lab: Lab) -> None:
    service = lab.api.create(
        SERVICES, {"metadata": {"name": "sleeper"}, "spec": {"selector": LABELS, "ports": [{"port": 80}]}}
    )
    lab.api.create(DEPLOYMENTS, deployment(2))
    wait_until(lambda: len(ready_addresses(lab)) == 2)
    assert all(address.startswith("10.244.") for address in ready_addresses(lab))
    image = f"--image={ROUTER.reference}"
    lab.kubectl("run", "asker", image, "--restart=Never", "--command", "--", "python", "-c", LOOK_UP)
    lab.kubectl("wait", "pod/asker", "--for=jsonpath={.status.phase}=Succeeded", "--timeout=60s")
    assert lab.kubectl("logs", "asker").split() == [service["spec"]["clusterIP"], "10.96.0.1"]
    lab.api.patch(f"{DEPLOYMENTS}/sleeper", {"spec": {"replicas": 0}})
    wait_until(lambda: not ready_addresses(lab))
    lab.kubectl("delete", "deployment/sleeper", "service/sleeper", "pod/asker")
