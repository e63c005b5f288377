"""The commands of docs/deployment that need no pods, run in order against a real API server, page by page."""

import json
from collections.abc import Generator
from pathlib import Path
from typing import Final

import pytest

from chart_render import NAMESPACE
from chart_repository import checkout
from lab.control_plane import Kubernetes
from pages import Desk, Place, pages, shell

INSTALLS: Final = {"gcp", "aws"}  # the others change what was installed
CHOICES: Final = {"access-and-auth"}  # its commands exclude each other
OF_THE_QUICKSTART: Final = 5  # workers at most; the chart itself says 10
SCALED: Final = f"/apis/keda.sh/v1alpha1/namespaces/{NAMESPACE}/scaledobjects/sie-worker-l4"

# Where the quickstart names a registry, a file is named here.
PRINTED: Final = r"""
helm upgrade --install sie ./sie-cluster-0.1.10.tgz \
  --version 0.1.10 \
  -f helm-values.yaml \
  -n sie --create-namespace \
  --set "serviceAccount.annotations.iam\.gke\.io/gcp-service-account=$WI_SA" \
  --set hfToken.create=true \
  --set hfToken.value="$HF_TOKEN"
kubectl -n sie get pods -w
helm upgrade sie ./sie-cluster-0.1.10.tgz \
  --version 0.1.10 \
  -n sie \
  -f helm-values.yaml
kubectl get pods -n sie
"""


@pytest.fixture
def desk(cluster: Kubernetes, tmp_path: Path) -> Generator[Desk]:
    """With the quickstart installed, as `gcp.md` says."""
    with checkout(tmp_path) as folder:
        desk = Desk.at(folder, cluster.kubeconfig)
        install, *_ = shell("gcp", Place.API)
        desk.run(install.text)
        yield desk
        desk.run("helm uninstall sie -n sie --no-hooks && kubectl -n sie delete secrets --all")


@pytest.mark.parametrize("page", pages())
def test_every_command_of_a_page_runs_and_keeps_what_was_installed(cluster: Kubernetes, desk: Desk, page: str) -> None:
    for block in shell(page, Place.API):
        before = json.loads(desk.run("helm status sie -n sie -o json"))["version"]
        desk.run(block.text)
        if page not in INSTALLS:
            assert cluster.admin.get(SCALED)["spec"]["maxReplicaCount"] == OF_THE_QUICKSTART, block.text
        if page in CHOICES:
            desk.run(f"helm rollback sie {before} -n sie")  # helm remembers only the last ten


def test_a_packaged_chart_installs_and_upgrades_as_the_quickstart_prints_it(desk: Desk) -> None:
    desk.run("helm uninstall sie -n sie --no-hooks")
    desk.run("helm package deploy/helm/sie-cluster && cp deploy/helm/sie-cluster/examples/*.yaml .")
    desk.run(PRINTED)
    desk.run("helm upgrade sie ./sie-cluster-0.1.10.tgz --version 0.1.10 -n sie -f custom-values.yaml")


def test_a_command_that_fails_is_seen(desk: Desk) -> None:
    with pytest.raises(AssertionError, match="not-there"):
        desk.run("kubectl -n sie get configmap not-there\ntrue")
