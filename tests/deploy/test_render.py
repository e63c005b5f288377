"""What the chart makes of values. tests/cluster asks a real API server whether it accepts that."""

from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from chart_combinations import COMBINATIONS, ISSUER, SECRET_AUTH, SITE, SIZE, TLS, common, pools
from chart_render import NAMESPACE, SOURCE, Chart, Object, container, environment, only, overlay, pod_spec
from sie_router.settings import Flags, read_settings
from sie_server.settings import read

WORKLOADS = {"Deployment", "StatefulSet", "Job", "Pod"}


@pytest.fixture(scope="module", params=COMBINATIONS)
def rendered(chart: Chart, request: pytest.FixtureRequest) -> list[Object]:
    return chart.render(COMBINATIONS[request.param])


def workloads(objects: list[Object]) -> Iterator[Object]:
    return (each for each in objects if each["kind"] in WORKLOADS)


def pod_labels(item: Object) -> dict[str, str]:
    return dict((item if item["kind"] == "Pod" else item["spec"]["template"])["metadata"]["labels"])


def test_there_are_forty_combinations() -> None:
    assert len(COMBINATIONS) >= 40


def test_every_object_is_the_releases_and_of_one_name(rendered: list[Object]) -> None:
    named = [(each["kind"], each["metadata"]["name"]) for each in rendered]
    assert len(named) == len(set(named))
    for each in rendered:
        assert each["metadata"]["namespace"] == NAMESPACE
        assert each["metadata"]["labels"]["app.kubernetes.io/instance"] == "sie"


def test_every_container_is_locked_down_and_bounded(rendered: list[Object]) -> None:
    for each in workloads(rendered):
        pod, own = pod_spec(each), container(each)
        assert pod["securityContext"]["runAsNonRoot"]
        assert pod["securityContext"]["runAsUser"] > 0
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert own["securityContext"]["readOnlyRootFilesystem"]
        assert own["securityContext"]["capabilities"] == {"drop": ["ALL"]}
        assert {"cpu", "memory"} <= set(own["resources"]["requests"]) & set(own["resources"]["limits"])


def test_every_selector_finds_its_pods_and_no_others(rendered: list[Object]) -> None:
    pods = {each["metadata"]["name"]: pod_labels(each) for each in workloads(rendered)}

    def found(labels: dict[str, str]) -> set[str]:
        return {name for name, own in pods.items() if labels.items() <= own.items()}

    for each in workloads(rendered):
        if each["kind"] not in {"Job", "Pod"}:
            assert found(each["spec"]["selector"]["matchLabels"]) == {each["metadata"]["name"]}
    for kind, path in (("Service", ("spec", "selector")), ("PodDisruptionBudget", ("spec", "selector", "matchLabels"))):
        for each in (each for each in rendered if each["kind"] == kind):
            labels: Any = each
            for key in path:
                labels = labels[key]
            assert {pods[name]["app.kubernetes.io/component"] for name in found(labels)} == {
                each["metadata"]["labels"]["app.kubernetes.io/component"]
            }


class Told(dict[str, str]):
    """A process's environment that remembers what was looked up."""

    def __init__(self, item: Object) -> None:
        super().__init__(
            {
                name: text if isinstance(text, str) else name.lower().replace("_", "-")
                for name, text in environment(item).items()
            }
        )
        self.read: set[str] = set()

    def get(self, name: str, default: Any = None) -> Any:
        self.read.add(name)
        return super().get(name, default)

    def __getitem__(self, name: str) -> str:
        self.read.add(name)
        return super().__getitem__(name)

    @property
    def ignored(self) -> set[str]:
        """Ours that nobody looked at; those of `extraEnv` and of other programs are not ours."""
        return {name for name in self if name.startswith("SIE_")} - self.read


def test_programs_read_every_variable_that_they_are_given(rendered: list[Object]) -> None:
    for each in rendered:
        if each["kind"] == "StatefulSet":
            worker = read(told := Told(each))
            assert worker.machine_profile
            assert pod_spec(each)["terminationGracePeriodSeconds"] > worker.drain_grace_s + worker.drain_linger_s
            assert not told.ignored
        elif each["metadata"]["name"].endswith("-router") and each["kind"] == "Deployment":
            router = read_settings(Flags(kubernetes=True), told := Told(each))
            sets = {item["metadata"]["name"] for item in rendered if item["kind"] == "StatefulSet"}
            assert len(router.groups) == len(sets)
            assert {group.profile for group in router.groups} == set(router.profiles)
            assert not told.ignored


def test_replicas_of_workers_are_rendered_only_where_no_autoscaler_owns_them(rendered: list[Object]) -> None:
    scaled = {each["spec"]["scaleTargetRef"]["name"] for each in rendered if each["kind"] == "ScaledObject"}
    for each in (each for each in rendered if each["kind"] == "StatefulSet"):
        assert ("replicas" in each["spec"]) == (each["metadata"]["name"] not in scaled)
        assert each["spec"]["podManagementPolicy"] == "Parallel"


def test_a_fallback_is_within_the_bounds_of_its_pool(rendered: list[Object]) -> None:
    for spec in (each["spec"] for each in rendered if each["kind"] == "ScaledObject"):
        if "fallback" in spec:
            assert spec["minReplicaCount"] <= spec["fallback"]["replicas"] <= spec["maxReplicaCount"]
            assert spec["fallback"]["replicas"] > 0  # with 0, KEDA takes a failure for a reason to go to zero
            assert spec["fallback"]["behavior"] == "currentReplicasIfHigher"


def test_the_release_sie_has_the_names_that_the_documentation_says(chart: Chart) -> None:
    objects = chart.render()
    assert only(objects, "Service", "sie-router")["spec"]["ports"][0]["port"] == 8080
    assert pod_spec(only(objects, "StatefulSet"))["serviceAccountName"] == "sie-server"
    assert pod_spec(only(objects, "Deployment"))["serviceAccountName"] == "sie-router"
    labels = only(objects, "Deployment")["spec"]["template"]["metadata"]["labels"]
    assert labels["app.kubernetes.io/component"] == "router"


def test_the_rights_of_routers_are_the_file_that_is_tested_against_an_api(chart: Chart) -> None:
    role = yaml.safe_load((SOURCE / "files/router-role.yaml").read_text())
    assert only(chart.render(), "Role", "sie-router")["rules"] == role["rules"]


def test_only_routers_get_a_token_for_the_api(chart: Chart) -> None:
    for each in workloads(chart.render({"ingress": TLS, "auth": {"enabled": True, "oauth2Proxy": ISSUER}})):
        component = each["metadata"]["labels"]["app.kubernetes.io/component"]
        assert pod_spec(each)["automountServiceAccountToken"] == (component in {"router", "cleanup"})


def test_groups_come_cheapest_first(chart: Chart) -> None:
    values = pools(cpu={}, a100_80gb={}, l4={}, mine={"costRank": 15, "resources": SIZE})
    groups = environment(only(chart.render(values), "Deployment"))["SIE_ROUTER_GROUPS"]
    assert groups == "cpu:default,mine:default,l4:default,a100-80gb:default"


def test_the_cache_stays_below_its_volume(chart: Chart) -> None:
    worker = only(chart.render(common(cacheVolumeSize="100Gi")), "StatefulSet")
    volume = next(each for each in pod_spec(worker)["volumes"] if each["name"] == "models-cache")
    assert volume["emptyDir"] == {"sizeLimit": "100Gi"}
    assert int(environment(worker)["SIE_CACHE_MAX_BYTES"]) == 90 * 2**30


def test_models_are_kept_on_claims_where_that_is_asked_for(chart: Chart) -> None:
    worker = only(chart.render(common(cachePersistence={"enabled": True, "storageClass": "fast"})), "StatefulSet")
    (claim,) = worker["spec"]["volumeClaimTemplates"]
    assert claim["spec"]["resources"]["requests"]["storage"] == "300Gi"
    assert worker["spec"]["persistentVolumeClaimRetentionPolicy"]["whenDeleted"] == "Delete"
    assert claim["metadata"]["name"] not in {each["name"] for each in pod_spec(worker)["volumes"]}


@pytest.mark.parametrize(
    ("token", "secret"),
    [
        ({"create": True, "value": "hf_x"}, {"name": "sie-hf-token", "key": "token"}),
        ({"existingSecret": "hub", "key": "HF"}, {"name": "hub", "key": "HF"}),
    ],
)
def test_workers_read_the_hub_token(chart: Chart, token: dict[str, Any], secret: dict[str, str]) -> None:
    objects = chart.render({"hfToken": token})
    assert environment(only(objects, "StatefulSet"))["HF_TOKEN"] == {"secretKeyRef": secret}
    made = [each["stringData"] for each in objects if each["kind"] == "Secret"]
    assert made == ([{"token": "hf_x"}] if token.get("create") else [])


def test_a_spot_pool_chooses_spot_nodes_and_ends_in_time(chart: Chart) -> None:
    pod = pod_spec(only(chart.render(pools(l4={"spot": True}), *overlay("values-gke.yaml")), "StatefulSet"))
    assert pod["nodeSelector"]["cloud.google.com/gke-spot"] == "true"
    assert pod["terminationGracePeriodSeconds"] <= 25
    assert "cloud.google.com/gke-spot" in {each["key"] for each in pod["tolerations"]}


def test_users_annotations_win(chart: Chart) -> None:
    key = "nginx.ingress.kubernetes.io/proxy-body-size"
    objects = chart.render({"ingress": {"enabled": True, "annotations": {key: "1m"}}})
    assert only(objects, "Ingress")["metadata"]["annotations"][key] == "1m"


def test_sign_in_leads_to_https_where_the_site_is(chart: Chart) -> None:
    objects = chart.render({"ingress": TLS, "auth": {"enabled": True, "oauth2Proxy": ISSUER}})
    annotations = only(objects, "Ingress", "sie-router")["metadata"]["annotations"]
    assert annotations["nginx.ingress.kubernetes.io/auth-signin"].startswith("https://$host/")
    assert "--cookie-secure=true" in container(only(objects, "Deployment", "sie-oauth2-proxy"))["args"]


def test_users_are_told_apart_by_what_only_the_proxy_can_say_and_only_where_that_is_wanted(chart: Chart) -> None:
    proxy = {**ISSUER, "secret": {"proxySecretKey": "PROXY"}}
    key = {"valueFrom": {"secretKeyRef": {"name": "oauth2-proxy", "key": "PROXY"}}}
    annotation = "nginx.ingress.kubernetes.io/auth-response-headers"
    for is_wanted, values in ((True, proxy), (False, ISSUER)):
        objects = chart.render({"ingress": TLS, "auth": {"enabled": True, "oauth2Proxy": values}})
        router, front = (container(only(objects, "Deployment", name)) for name in ("sie-router", "sie-oauth2-proxy"))
        assert ({"name": "SIE_AUTH_PROXY_SECRET", **key} in router["env"]) is is_wanted
        assert ({"name": "OAUTH2_PROXY_BASIC_AUTH_PASSWORD", **key} in front["env"]) is is_wanted
        assert ("--set-basic-auth=true" in front["args"]) is is_wanted
        assert [each["value"] for each in router["env"] if each["name"] == "SIE_AUTH_MODE"] == [
            "static" if is_wanted else "none"
        ]
        annotations = only(objects, "Ingress", "sie-router")["metadata"]["annotations"]
        assert annotations.get(annotation) == ("Authorization" if is_wanted else None)
        (rule,) = only(objects, "Ingress", "sie-oauth2-proxy")["spec"]["rules"]
        shown = {(each["path"], each["pathType"]) for each in rule["http"]["paths"]}
        if is_wanted:  # /oauth2/auth answers with the password: the ingress asks it inside
            assert shown == {(f"/oauth2/{each}", "Exact") for each in ("start", "callback", "sign_in", "sign_out")}
        else:
            assert shown == {("/oauth2", "Prefix")}


def test_the_world_never_sees_metrics(chart: Chart) -> None:
    for values in ({"ingress": {"enabled": True}}, COMBINATIONS["gateway"]):
        text = str([each for each in chart.render(values) if each["kind"] in {"Ingress", "HTTPRoute"}])
        assert "metrics" not in text
        assert "'/'" not in text


def test_prometheus_scrapes_with_a_token_of_its_own(chart: Chart) -> None:
    objects = chart.render({"router": SECRET_AUTH, "serviceMonitor": {"enabled": True}})
    (endpoint,) = only(objects, "ServiceMonitor", "sie-router")["spec"]["endpoints"]
    assert endpoint["authorization"]["credentials"] == {"name": "tokens", "key": "METRICS"}


def test_bundled_prometheus_is_asked_where_it_is(chart: Chart) -> None:
    for values, namespace in (({}, "monitoring"), ({"kube-prometheus-stack": {"install": True}}, NAMESPACE)):
        trigger = only(chart.render(values), "ScaledObject")["spec"]["triggers"][0]
        assert trigger["metadata"]["serverAddress"] == f"http://prometheus-operated.{namespace}.svc:9090"


def test_an_address_of_prometheus_may_end_with_a_slash(chart: Chart) -> None:
    objects = chart.render({"autoscaling": {"prometheusAddress": "http://p.example.com/prometheus/"}})
    trigger = only(objects, "ScaledObject")["spec"]["triggers"][0]
    assert trigger["metadata"]["serverAddress"] == "http://p.example.com/prometheus"


def test_kedas_kinds_come_before_everything_and_only_with_keda(chart: Chart) -> None:
    kinds = chart.render({"keda": {"install": True}}, "--include-crds")
    assert kinds[0]["kind"] == "CustomResourceDefinition"
    assert "scaledobjects.keda.sh" in {each["metadata"]["name"] for each in kinds}
    assert "CustomResourceDefinition" not in {each["kind"] for each in chart.render(None, "--include-crds")}


@pytest.mark.parametrize(
    "file",
    [
        "values-gke.yaml",
        "values-eks.yaml",
        "examples/helm-values.yaml",
        *(f"../../terraform/{cloud}/examples/quickstart/helm-values.yaml" for cloud in ("gcp", "aws")),
    ],
)
def test_overlays_render(chart: Chart, file: str) -> None:
    objects = chart.render(None, *overlay(file))
    assert only(objects, "ScaledObject")["spec"]["minReplicaCount"] == 0


def test_the_custom_values_of_the_documentation_do_what_they_say(chart: Chart) -> None:
    objects = chart.render(None, *overlay("examples/custom-values.yaml"))
    assert only(objects, "Deployment", "sie-router")["spec"]["replicas"] == 3
    scaled = only(objects, "ScaledObject")["spec"]
    assert (scaled["minReplicaCount"], scaled["maxReplicaCount"], scaled["cooldownPeriod"]) == (1, 20, 300)
    assert environment(only(objects, "StatefulSet"))["SIE_CLUSTER_CACHE"] == "gs://my-bucket/models"
    tls = only(objects, "Ingress", "sie-router")["spec"]["tls"]
    assert tls == [{"hosts": ["sie.example.com"], "secretName": "sie-tls"}]
    proxy = container(only(objects, "Deployment", "sie-oauth2-proxy"))
    assert "--oidc-issuer-url=https://auth.example.com/realms/sie" in proxy["args"]
    assert len([each for each in objects if each["kind"] == "ServiceMonitor"]) == 2


def test_autoscaling_values_mean_what_the_documentation_says(chart: Chart) -> None:
    spec = only(chart.render(), "ScaledObject")["spec"]
    assert (spec["pollingInterval"], spec["cooldownPeriod"], spec["fallback"]["replicas"]) == (15, 900, 2)
    behavior = spec["advanced"]["horizontalPodAutoscalerConfig"]["behavior"]
    assert behavior["scaleDown"]["stabilizationWindowSeconds"] == 300
    triggers = {each["name"]: each["metadata"] for each in spec["triggers"]}
    queue = triggers["queue_depth"]
    assert int(queue["threshold"]) == 10
    # KEDA activates strictly above the threshold, so two items activate and one does not; demand is there with one.
    assert 1 <= int(queue["activationThreshold"]) < 2
    assert int(triggers["demand"]["activationThreshold"]) == 0
    assert {each["ignoreNullValues"] for each in triggers.values()} == {"false"}
    assert {each["metricType"] for each in spec["triggers"]} == {"AverageValue"}  # the only type that always falls back


def test_our_images_come_from_our_registry_and_a_mirror_is_for_all(chart: Chart) -> None:
    values = {
        "imageRegistry": "ours.example.com/sie",
        "ingress": SITE,
        "auth": {"enabled": True, "oauth2Proxy": ISSUER},
    }
    for mirror, others in (({}, "oauth2-proxy/"), ({"imageRegistry": "mirror.example.com"}, "mirror.example.com/")):
        images = {container(each)["image"] for each in workloads(chart.render({**values, "global": mirror}))}
        assert {image.partition("/sie-")[0] for image in images if "/sie-" in image} == {"ours.example.com/sie"}
        assert next(image for image in images if "/sie-" not in image).startswith(others)


def test_a_pool_may_scale_in_its_own_way(chart: Chart) -> None:
    objects = chart.render(pools(l4={"autoscaling": {"cooldownPeriod": 300, "queueDepthThreshold": 4}}, cpu={}))
    own, other = (only(objects, "ScaledObject", f"sie-worker-{name}")["spec"] for name in ("l4", "cpu"))
    assert (own["cooldownPeriod"], own["pollingInterval"], other["cooldownPeriod"]) == (300, 15, 900)
    depths = [
        each["metadata"]["threshold"]
        for spec in (own, other)
        for each in spec["triggers"]
        if each["name"] == "queue_depth"
    ]
    assert depths == ["4", "10"]


def test_zero_for_one_pool_counts(chart: Chart) -> None:
    nothing = {"fallbackReplicas": 0, "cooldownPeriod": 0, "scaleDownStabilization": 0}
    objects = chart.render(pools(l4={"autoscaling": nothing}, cpu={}))
    own, other = (only(objects, "ScaledObject", f"sie-worker-{name}")["spec"] for name in ("l4", "cpu"))
    assert "fallback" not in own
    assert "fallback" in other
    assert own["cooldownPeriod"] == 0
    behavior = own["advanced"]["horizontalPodAutoscalerConfig"]["behavior"]
    assert behavior["scaleDown"]["stabilizationWindowSeconds"] == 0


def test_every_variable_is_there_once_and_the_nearest_counts(chart: Chart) -> None:
    def extra(**variables: str) -> list[dict[str, str]]:
        return [{"name": name, "value": value} for name, value in variables.items()]

    values = {
        "router": {"extraEnv": extra(SIE_LOG_LEVEL="debug", OWN="1")},
        "workers": {
            "common": {"extraEnv": extra(HF_HOME="/models/own", A="common", B="common")},
            "pools": {"l4": {"extraEnv": extra(A="pool")}},
        },
    }
    for each in workloads(chart.render(values)):
        listed = [variable["name"] for variable in container(each).get("env", ())]
        assert len(listed) == len(set(listed))
    objects = chart.render(values)
    assert {"SIE_LOG_LEVEL": "debug", "OWN": "1"}.items() <= environment(only(objects, "Deployment")).items()
    worker = environment(only(objects, "StatefulSet"))
    assert {"HF_HOME": "/models/own", "A": "pool", "B": "common"}.items() <= worker.items()


def test_names_that_look_like_numbers_stay_text(chart: Chart) -> None:
    """YAML reads `name: 1234` as a number, which the API refuses, and `name: null` as nothing."""
    text = "1234"
    named = {"priorityClassName": text, "podLabels": {"a": text}, "nodeSelector": {"a": text}}
    tokens = dict.fromkeys(("tokenSecretName", "tokenSecretKey", "adminTokenSecretKey", "metricsTokenSecretKey"), text)
    values = {
        "nameOverride": text,
        "global": {"imagePullSecrets": [text]},
        "catalog": {"modelsConfigMap": text, "bundlesConfigMap": text},
        "router": {**named, "auth": {"mode": "static", **tokens}, "serviceAccount": {"create": False, "name": text}},
        "workers": {
            "common": {**named, "runtimeClassName": text, "cachePersistence": {"enabled": True, "storageClass": text}},
            "pools": {"l4": {"enabled": False}, text: {"enabled": True, "bundle": text, "resources": SIZE}},
        },
        "networkPolicy": {"monitoringNamespace": text},
        "serviceAccount": {"name": text},
        "serviceMonitor": {"enabled": True, "labels": {"a": text}},
        "hfToken": {"create": True, "value": text, "key": text},
    }
    objects = chart.render(values, "-n", text, release="on")
    assert {each["metadata"]["namespace"] for each in objects} == {text}
    assert {each["metadata"]["labels"]["app.kubernetes.io/instance"] for each in objects} == {"on"}
    assert not [path for path, value in leaves(objects) if value == int(text) or int(text) in path]


def leaves(part: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[tuple[Any, ...], Any]]:
    """Where each value without parts stands, and the value."""
    if isinstance(part, dict | list):
        for key, value in part.items() if isinstance(part, dict) else enumerate(part):
            yield from leaves(value, (*path, key))
    else:
        yield path, part


def test_two_releases_share_nothing(chart: Chart) -> None:
    values = {"serviceAccount": {"name": "other-server"}}
    first = {(each["kind"], each["metadata"]["name"]) for each in chart.render(COMBINATIONS["hub token"])}
    second = {(each["kind"], each["metadata"]["name"]) for each in chart.render(values, release="other")}
    assert not first & second
