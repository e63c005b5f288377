"""A real API server that knows the kinds which the chart makes."""

from pathlib import Path
from typing import Final

import msgspec
import yaml

from chart_render import NAMESPACE, SOURCE
from lab.api import Refused
from lab.control_plane import Kubernetes
from lab.daemon import wait_until

KINDS: Final = (
    *(SOURCE / "charts/keda-crds/crds").glob("*.yaml"),
    *(Path(__file__).resolve().parents[1] / "deploy/kinds").glob("*.yaml"),
)
GROUPS: Final = ("keda.sh/v1alpha1", "monitoring.coreos.com/v1", "gateway.networking.k8s.io/v1")


def resources(kubernetes: Kubernetes, group: str) -> dict[str, str]:
    """Where the API keeps each kind of a group, in the namespace of the chart."""
    root = f"/api/{group}" if group == "v1" else f"/apis/{group}"
    try:
        found = kubernetes.admin.get(root)["resources"]
    except (Refused, msgspec.DecodeError):  # a group that is not served yet is plain text
        return {}
    return {each["kind"]: f"{root}/namespaces/{NAMESPACE}/{each['name']}" for each in found if "/" not in each["name"]}


def add_kinds(kubernetes: Kubernetes) -> None:
    """Add those of KEDA, the Prometheus operator and the Gateway API, and a namespace of Pod Security "restricted"."""
    for file in KINDS:
        kubernetes.admin.create(
            "/apis/apiextensions.k8s.io/v1/customresourcedefinitions", yaml.safe_load(file.read_text())
        )
    enforce = {"pod-security.kubernetes.io/enforce": "restricted"}
    kubernetes.admin.create("/api/v1/namespaces", {"metadata": {"name": NAMESPACE, "labels": enforce}})
    kubernetes.admin.create(f"/api/v1/namespaces/{NAMESPACE}/serviceaccounts", {"metadata": {"name": "any"}})
    wait_until(lambda: all(resources(kubernetes, group) for group in GROUPS))
