"""Terraform and the chart agree: pods of the chart run on the machines of the plan, and as whom the plan lets read."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from chart_render import SOURCE, Chart, Object, container, environment, only, pod_spec, prepared
from machine_shapes import EVICTION, IMAGES_GIB, SHAPES, quantity
from terraform.engine import MODULES, Terraform
from terraform_plans import CLOUDS, NEEDED, Plan, planned

pytestmark = pytest.mark.timeout(900)
POOLS: dict[str, dict[str, list[dict[str, Any]]]] = {
    "gcp": {
        "default": [],
        "production": [
            {"name": "l4-pool", "machine_type": "g2-standard-8", "min_node_count": 1, "max_node_count": 20},
            {"name": "a100-pool", "machine_type": "a2-highgpu-1g", "max_node_count": 10, "spot": True},
        ],
        "smallest": [{"name": "l4", "machine_type": "g2-standard-4", "max_node_count": 3, "local_ssd_count": 1}],
        "many": [
            {"name": "a100", "machine_type": "a2-ultragpu-8g", "max_node_count": 2},
            {"name": "a100-spot", "machine_type": "a2-ultragpu-1g", "max_node_count": 4, "spot": True},
            {"name": "l4", "machine_type": "g2-standard-96", "max_node_count": 2},
        ],
        "beyond_the_chart": [{"name": "h100", "machine_type": "a3-highgpu-8g", "max_node_count": 2, "spot": True}],
        "own_taints": [
            {
                "name": "l4",
                "machine_type": "g2-standard-8",
                "max_node_count": 2,
                "taints": [{"key": "team", "value": "search", "effect": "NO_EXECUTE"}],
            }
        ],
    },
    "aws": {
        "default": [],
        "production": [
            {"name": "l4-pool", "machine_type": "g6.2xlarge", "min_node_count": 1, "max_node_count": 20},
            {"name": "a100-pool", "machine_type": "p4d.24xlarge", "max_node_count": 2, "spot": True},
        ],
        "smallest": [{"name": "l4", "machine_type": "g6.xlarge", "max_node_count": 3}],
        "many": [
            {"name": "a100", "machine_type": "p4de.24xlarge", "max_node_count": 2},
            {"name": "l4", "machine_type": "g6.48xlarge", "max_node_count": 2},
        ],
    },
}
ACCELERATOR = {"gcp": "cloud.google.com/gke-accelerator", "aws": "k8s.amazonaws.com/accelerator"}
OVERLAYS = {"gcp": "values-gke.yaml", "aws": "values-eks.yaml"}
EFFECTS = {"NO_SCHEDULE": "NoSchedule", "NO_EXECUTE": "NoExecute", "PREFER_NO_SCHEDULE": "PreferNoSchedule"}


@pytest.fixture(scope="module")
def chart(tmp_path_factory: pytest.TempPathFactory) -> Chart:
    return prepared(tmp_path_factory.mktemp("chart"))


@pytest.fixture(scope="module")
def plans(terraform: Terraform, modules: Path) -> dict[str, dict[str, Plan]]:
    return {
        cloud: planned(
            terraform,
            modules / cloud,
            {
                name: {**NEEDED[cloud], **({"gpu_node_pools": pools} if pools else {})}
                for name, pools in POOLS[cloud].items()
            },
        )
        for cloud in CLOUDS
    }


Rendered = tuple[str, Plan, list[Object]]


@pytest.fixture(scope="module", params=[(cloud, name) for cloud in CLOUDS for name in POOLS[cloud]], ids="-".join)
def rendered(request: pytest.FixtureRequest, chart: Chart, plans: dict[str, dict[str, Plan]]) -> Rendered:
    """Cloud, plan, and what the chart makes of the plan's values."""
    cloud, name = request.param
    plan = plans[cloud][name]
    return cloud, plan, chart.render(plan.values)


def workers(objects: list[Object]) -> Iterator[Object]:
    return (each for each in objects if each["kind"] == "StatefulSet")


def nodes(cloud: str, plan: Plan) -> Iterator[tuple[dict[str, Any], dict[str, str], list[dict[str, str]]]]:
    """Each GPU pool, with the labels and the taints that its machines have, the cloud's own among them."""
    for pool in plan.outputs["gpu_node_pools"].values():
        labels = {**pool["labels"], ACCELERATOR[cloud]: pool["gpu_type"]}
        taints = [{**taint, "effect": EFFECTS[taint["effect"]]} for taint in pool["taints"]]
        if cloud == "gcp":
            taints.append({"key": "nvidia.com/gpu", "value": "present", "effect": "NoSchedule"})
            labels |= {"cloud.google.com/gke-spot": "true"} if pool["spot"] else {}
        else:
            labels |= {"eks.amazonaws.com/capacityType": "SPOT" if pool["spot"] else "ON_DEMAND"}
        yield pool, labels, taints


def tolerated(taint: dict[str, str], tolerations: list[dict[str, str]]) -> bool:
    return any(
        each.get("key", taint["key"]) == taint["key"]
        and each.get("effect", taint["effect"]) == taint["effect"]
        and (each.get("operator") == "Exists" or each.get("value") == taint["value"])
        for each in tolerations
    )


def fitting(cloud: str, plan: Plan, pod: Object) -> list[dict[str, Any]]:
    """The pools on whose machines the scheduler would put this pod."""
    return [
        pool
        for pool, labels, taints in nodes(cloud, plan)
        if pod.get("nodeSelector", {}).items() <= labels.items()
        and all(tolerated(taint, pod.get("tolerations", [])) for taint in taints)
    ]


def test_every_pool_of_machines_has_workers_and_every_worker_has_machines(rendered: Rendered) -> None:
    cloud, plan, objects = rendered
    used = [pool for each in workers(objects) for pool in fitting(cloud, plan, pod_spec(each))]
    assert {pool["machine_type"] for pool in used} == {
        pool["machine_type"] for pool in plan.outputs["gpu_node_pools"].values()
    }
    assert all(fitting(cloud, plan, pod_spec(each)) for each in workers(objects))


def test_workers_never_share_a_machine_with_another_kind_of_gpu(rendered: Rendered) -> None:
    cloud, plan, objects = rendered
    for each in workers(objects):
        assert len({pool["gpu_type"] for pool in fitting(cloud, plan, pod_spec(each))}) == 1


def test_as_many_workers_fit_a_machine_as_it_has_gpus(rendered: Rendered) -> None:
    cloud, plan, objects = rendered
    for each in workers(objects):
        resources = container(each)["resources"]
        assert resources["limits"]["nvidia.com/gpu"] == 1
        for pool in fitting(cloud, plan, pod_spec(each)):
            shape = SHAPES[pool["machine_type"]]
            assert shape.gpus * quantity(resources["requests"]["cpu"]) <= shape.pod_cores()
            assert shape.gpus * quantity(resources["requests"]["memory"]) <= shape.pod_gib()
            assert shape.gpus * quantity(resources["limits"]["memory"]) <= shape.pod_gib()


def test_models_and_images_fit_the_disk(rendered: Rendered) -> None:
    cloud, plan, objects = rendered
    for each in workers(objects):
        (size,) = [
            quantity(volume["emptyDir"]["sizeLimit"])
            for volume in pod_spec(each)["volumes"]
            if volume.get("emptyDir", {}).get("sizeLimit") and volume["emptyDir"].get("medium") != "Memory"
            if quantity(volume["emptyDir"]["sizeLimit"]) >= 10
        ]
        for pool in fitting(cloud, plan, pod_spec(each)):
            assert pool["gpu_count"] * size + IMAGES_GIB <= pool["disk_gib"] * (1 - EVICTION)


def test_the_chart_starts_no_more_workers_than_there_are_gpus(rendered: Rendered) -> None:
    cloud, plan, objects = rendered
    for each in workers(objects):
        pools = fitting(cloud, plan, pod_spec(each))
        scaled = only(objects, "ScaledObject", each["metadata"]["name"])["spec"]
        assert scaled["maxReplicaCount"] == sum(pool["max_node_count"] * pool["gpu_count"] for pool in pools)
        assert scaled.get("minReplicaCount", 0) == sum(pool["min_node_count"] * pool["gpu_count"] for pool in pools)


def test_workers_have_the_account_that_the_cloud_lets_read(rendered: Rendered) -> None:
    cloud, plan, objects = rendered
    account = only(objects, "ServiceAccount", "sie-server")
    namespace = account["metadata"]["namespace"]
    assert {pod_spec(each)["serviceAccountName"] for each in workers(objects)} == {"sie-server"}
    if cloud == "gcp":
        assert plan.outputs["workload_identity_member"].endswith(f"[{namespace}/sie-server]")
        annotations = account["metadata"]["annotations"]
        assert annotations == {"iam.gke.io/gcp-service-account": plan.outputs["workload_identity_sa"]}
    else:
        bound = plan.resources['aws_eks_pod_identity_association.this["workload"]']
        assert (bound["namespace"], bound["service_account"]) == (namespace, "sie-server")


def test_workers_read_models_from_the_bucket_of_the_plan(rendered: Rendered) -> None:
    _, plan, objects = rendered
    for each in workers(objects):
        assert plan.outputs["model_cache_url"] in environment(each).values()


def test_images_come_from_the_registry_of_the_plan(rendered: Rendered) -> None:
    _, plan, objects = rendered
    for each in (each for each in objects if each["kind"] in {"StatefulSet", "Deployment"}):
        assert container(each)["image"].startswith(f"{plan.outputs['artifact_registry_url']}/sie-")


def test_the_quickstarts_values_fit_the_quickstarts_machines(terraform: Terraform, modules: Path, chart: Chart) -> None:
    example = modules / "gcp/examples/quickstart"
    (example / "tests/mocks").symlink_to("../../../tests/mocks")
    (plan,) = planned(terraform, example, {"quickstart": {"project_id": "my-project"}}, "google").values()
    values = yaml.safe_load((example / "helm-values.yaml").read_text())
    key = r"serviceAccount.annotations.iam\.gke\.io/gcp-service-account"
    objects = chart.render(values, "--set", f"{key}={plan.outputs['workload_identity_sa']}")
    (worker,) = workers(objects)
    selector, (made,) = pod_spec(worker)["nodeSelector"], plan.values["workers"]["pools"].values()
    assert selector.items() <= {**made["nodeSelector"], "cloud.google.com/gke-spot": "true"}.items()
    requests = container(worker)["resources"]["requests"]
    assert quantity(requests["cpu"]) <= SHAPES["g2-standard-8"].pod_cores()
    assert quantity(requests["memory"]) <= SHAPES["g2-standard-8"].pod_gib()
    assert quantity(values["workers"]["common"]["cacheVolumeSize"]) + IMAGES_GIB <= 375 * (1 - EVICTION)
    annotations = only(objects, "ServiceAccount", "sie-server")["metadata"]["annotations"]
    assert annotations == {"iam.gke.io/gcp-service-account": plan.outputs["workload_identity_sa"]}


def test_the_quickstart_ships_the_charts_example() -> None:
    example = MODULES / "gcp/examples/quickstart/helm-values.yaml"
    assert example.read_text() == (SOURCE / "examples/helm-values.yaml").read_text()


@pytest.mark.parametrize("cloud", CLOUDS)
def test_the_modules_values_have_what_the_overlay_has(cloud: str, plans: dict[str, dict[str, Plan]]) -> None:
    def within(part: Any, whole: Any) -> bool:
        if isinstance(part, dict):
            return all(key in whole and within(value, whole[key]) for key, value in part.items())
        return bool(part == whole)

    shared = yaml.safe_load((SOURCE / OVERLAYS[cloud]).read_text())
    pools = shared["workers"].pop("pools")
    assert within(shared, plans[cloud]["default"].values)
    if cloud == "gcp":
        for plan in plans[cloud].values():
            for name, pool in plan.values["workers"]["pools"].items():
                assert not pool["enabled"] or pools.get(name, pool)["nodeSelector"] == pool["nodeSelector"]


@pytest.mark.parametrize("cloud", CLOUDS)
def test_the_module_knows_the_machines(cloud: str) -> None:
    text = "\n".join(file.read_text() for file in (MODULES / cloud).glob("*.tf"))
    rows = re.findall(
        r'^ +"([\w.-]+)" += \{ gpu_type = "([\w-]+)", gpu_count = (\d+), cores = (\d+), memory = (\d+)',
        text,
        re.MULTILINE,
    )
    known = {name: (gpu, int(gpus), int(cores), int(memory)) for name, gpu, gpus, cores, memory in rows}
    assert known == {
        name: (shape.gpu, shape.gpus, shape.cores, shape.memory_gib)
        for name, shape in SHAPES.items()
        if shape.cloud == cloud
    }


@pytest.mark.parametrize("cloud", CLOUDS)
def test_the_module_installs_the_chart_of_this_version(cloud: str) -> None:
    text = (MODULES / cloud / "variables_releases.tf").read_text()
    version = yaml.safe_load((SOURCE / "Chart.yaml").read_text())["version"]
    found = re.search(r'variable "sie_chart_version" \{.*?default += "([^"]+)"', text, re.DOTALL)
    assert found is not None
    assert found[1] == version
