"""A real API server accepts everything that the chart renders, keeps what an autoscaler decided, and lets it all go."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

from chart_api import resources
from chart_combinations import COMBINATIONS
from chart_render import NAMESPACE, SOURCE, Chart, Object, container, only, overlay, prepared
from lab.api import Refused
from lab.control_plane import Kubernetes
from lab.daemon import wait_until

STRICT: Final = "?dryRun=All&fieldValidation=Strict"
ACCOUNT: Final = "iam\\.gke\\.io/gcp-service-account"
WORKLOADS: Final = ("Deployment", "StatefulSet", "Job", "Pod")


@pytest.fixture(scope="module")
def chart(tmp_path_factory: pytest.TempPathFactory) -> Chart:
    return prepared(tmp_path_factory.mktemp("chart"))


def _pod(item: Object) -> Object:
    """A pod as the controllers would make it, for admission to judge; priority and runtime classes are not here."""
    template = item if item["kind"] == "Pod" else item["spec"]["template"]
    spec = {key: each for key, each in template["spec"].items() if key not in {"priorityClassName", "runtimeClassName"}}
    claims = [each["metadata"]["name"] for each in item["spec"].get("volumeClaimTemplates", ())]
    volumes = [*spec.get("volumes", ()), *({"name": name, "emptyDir": {}} for name in claims)]
    spec |= {"serviceAccountName": "any", "volumes": volumes}
    return {"metadata": {**template["metadata"], "generateName": "pod-"}, "spec": spec}


@pytest.mark.parametrize("name", COMBINATIONS)
def test_the_api_accepts_every_object_strictly(cluster: Kubernetes, chart: Chart, name: str) -> None:
    paths: dict[str, dict[str, str]] = {}
    for item in chart.render(COMBINATIONS[name]):
        group = paths.setdefault(item["apiVersion"], resources(cluster, item["apiVersion"]))
        if item["kind"] != "Pod":
            cluster.admin.create(group[item["kind"]] + STRICT, item)
        if item["kind"] in WORKLOADS:
            cluster.admin.create(f"/api/v1/namespaces/{NAMESPACE}/pods{STRICT}", _pod(item))


def test_strict_means_strict(cluster: Kubernetes) -> None:
    typo = {"metadata": {"name": "a"}, "spec": {"selector": {}, "port": []}}
    with pytest.raises(Refused, match="unknown field"):
        cluster.admin.create(f"/api/v1/namespaces/{NAMESPACE}/services{STRICT}", typo)
    pod = {"serviceAccountName": "any", "containers": [{"name": "a", "image": "a"}]}
    rooted: dict[str, Any] = {"metadata": {"name": "a"}, "spec": pod}
    with pytest.raises(Refused, match="PodSecurity"):
        cluster.admin.create(f"/api/v1/namespaces/{NAMESPACE}/pods{STRICT}", rooted)


@pytest.fixture
def helm(cluster: Kubernetes, chart: Chart, namespace: str) -> Callable[..., str]:
    def run(*arguments: str) -> str:
        return chart.helm(*arguments, "-n", namespace, "--kubeconfig", str(cluster.kubeconfig))

    return run


@pytest.mark.parametrize("values", ["examples/helm-values.yaml", "examples/custom-values.yaml"])
def test_the_documented_commands_run(helm: Callable[..., str], chart: Chart, values: str) -> None:
    token = ("--set", "hfToken.create=true", "--set", "hfToken.value=hf_x")
    account = ("--set", f"serviceAccount.annotations.{ACCOUNT}=sie@my-project.iam.gserviceaccount.com")
    install = ("upgrade", "--install", "sie", str(chart.folder), *overlay(values), "--create-namespace")
    said = helm(*install, *account, *token, "--dry-run=server")
    assert "iam.gke.io/gcp-service-account: sie@my-project.iam.gserviceaccount.com" in said
    assert "port-forward svc/sie-router 8080:8080" in said


def test_an_upgrade_keeps_what_the_autoscaler_decided_and_prunes_with_the_pool(
    cluster: Kubernetes, helm: Callable[..., str], chart: Chart, namespace: str
) -> None:
    scaled = f"/apis/keda.sh/v1alpha1/namespaces/{namespace}/scaledobjects"
    sets = f"/apis/apps/v1/namespaces/{namespace}/statefulsets"
    pools = ("--set", "workers.pools.a100-40gb.enabled=true")
    helm("install", "sie", str(chart.folder), *pools)
    assert len(cluster.admin.get(scaled)["items"]) == 2
    cluster.admin.patch(f"{sets}/sie-worker-l4/scale", {"spec": {"replicas": 7}})
    helm("upgrade", "sie", str(chart.folder), "--set", "workers.common.drainSeconds=20")
    assert cluster.admin.get(f"{sets}/sie-worker-l4")["spec"]["replicas"] == 7
    assert [each["metadata"]["name"] for each in cluster.admin.get(scaled)["items"]] == ["sie-worker-l4"]
    helm("uninstall", "sie", "--no-hooks")
    assert cluster.admin.get(scaled)["items"] == []
    left = [each["metadata"]["name"] for each in cluster.admin.get(f"/api/v1/namespaces/{namespace}/services")["items"]]
    assert left == []


def removal(cluster: Kubernetes, chart: Chart, namespace: str, folder: Path, name: str) -> list[str]:
    """The command of a clean-up job of the chart, outside a pod, with the rights of the job's account."""
    objects = chart.render({"keda": {"install": True}})
    account = cluster.service_account(namespace, name)
    cluster.bind(account, only(objects, "Role", name)["rules"])
    token = yaml.safe_load(account.kubeconfig.read_text())["users"][0]["user"]["token"]
    (folder / "token").write_text(token)
    (folder / "ca.crt").write_bytes(cluster.files.authority.files.certificate.read_bytes())
    run = f"import pathlib, remove; exit(remove.main({{}}, {cluster.url!r}, pathlib.Path({str(folder)!r})))"
    paths = [path.replace(f"/{NAMESPACE}/", f"/{namespace}/") for path in container(only(objects, "Job", name))["args"]]
    return [sys.executable, "-B", "-c", run.format(paths)]


def test_pools_go_with_their_release(cluster: Kubernetes, chart: Chart, namespace: str, tmp_path: Path) -> None:
    kinds = (
        f"/api/v1/namespaces/{namespace}/configmaps",
        f"/apis/coordination.k8s.io/v1/namespaces/{namespace}/leases",
    )
    for path in kinds:
        for release in ("sie", "other"):
            labels = {"sie.superlinked.com/type": "pool", "app.kubernetes.io/instance": release}
            cluster.admin.create(path, {"metadata": {"name": f"{release}-pool-a", "labels": labels}})
        cluster.admin.create(path, {"metadata": {"name": "mine"}})
    command = removal(cluster, chart, namespace, tmp_path, "sie-pool-cleanup")
    assert subprocess.run(command, check=False, cwd=SOURCE / "files").returncode == 0
    for path in kinds:
        left = {each["metadata"]["name"] for each in cluster.admin.get(path)["items"]} - {"kube-root-ca.crt"}
        assert left == {"other-pool-a", "mine"}


def test_the_clean_up_waits_until_keda_lets_go(
    cluster: Kubernetes, chart: Chart, namespace: str, tmp_path: Path
) -> None:
    scaled = f"/apis/keda.sh/v1alpha1/namespaces/{namespace}/scaledobjects"
    for release, finalizers in (("sie", ["finalizer.keda.sh"]), ("other", [])):
        item = {
            "apiVersion": "keda.sh/v1alpha1",
            "kind": "ScaledObject",
            "metadata": {"name": release, "labels": {"app.kubernetes.io/instance": release}, "finalizers": finalizers},
            "spec": {"scaleTargetRef": {"name": "x"}, "triggers": [{"type": "cron", "metadata": {}}]},
        }
        cluster.admin.create(scaled, item)
    command = removal(cluster, chart, namespace, tmp_path, "sie-keda-cleanup")
    job = subprocess.Popen(command, cwd=SOURCE / "files")
    wait_until(lambda: "deletionTimestamp" in cluster.admin.get(f"{scaled}/sie")["metadata"])
    assert job.poll() is None
    cluster.admin.patch(f"{scaled}/sie", {"metadata": {"finalizers": []}})  # as KEDA's operator does
    assert job.wait(30) == 0
    assert [each["metadata"]["name"] for each in cluster.admin.get(scaled)["items"]] == ["other"]
