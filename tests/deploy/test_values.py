"""Wrong values are refused, with words that say what is wrong."""

import json
from typing import Any, Final

import pytest
import yaml

from chart_combinations import ISSUER, SITE, SIZE, common, pools
from chart_render import SOURCE, Chart, HelmError, only, overlay, pod_spec

SCHEMA: Final = yaml.safe_load((SOURCE / "values.schema.json").read_text())
GATEWAY = {"enabled": True, "parentRefs": [{"name": "web"}]}
STATIC = {"mode": "static", "tokenSecretName": "tokens"}
MISTAKES: list[tuple[dict[str, Any], str]] = [
    ({"router": {"replica": 3}}, "'/router': additional properties 'replica' not allowed"),
    ({"autoscale": {}}, "additional properties 'autoscale' not allowed"),
    (common(cacheStorageSize="1Gi"), "additional properties 'cacheStorageSize' not allowed"),
    (pools(l4={"minReplica": 1}), "'/workers/pools/l4': additional properties 'minReplica' not allowed"),
    (pools(l4={"autoscaling": {"enabled": False}}), "'/workers/pools/l4/autoscaling': additional properties 'enabled'"),
    ({"autoscaling": {"cooldown": 1}}, "additional properties 'cooldown' not allowed"),
    ({"ingress": {"tls": {"secret": "x"}}}, "additional properties 'secret' not allowed"),
    ({"hfToken": {"token": "x"}}, "additional properties 'token' not allowed"),
    ({"router": {"replicas": 0}}, "'/router/replicas': minimum"),
    ({"router": {"replicas": "2"}}, "'/router/replicas': got string, want integer"),
    (common(cacheVolumeSize=300), "'/workers/common/cacheVolumeSize': got number, want string"),
    (common(cacheVolumeSize="300GB"), "'/workers/common/cacheVolumeSize': '300GB' does not match pattern"),
    (pools(l4={"maxReplicas": 0}), "'/workers/pools/l4/maxReplicas': minimum"),
    (pools(l4={"gpu": {"count": -1}}), "'/workers/pools/l4/gpu/count': minimum"),
    (pools(l4={"nodeSelector": {"spot": True}}), "l4/nodeSelector/spot': got boolean, want null or string"),
    (pools(l4={"resources": {"requests": {"cpu": "four"}}}), "'four' does not match pattern"),
    ({"workers": {"pools": {"L4": {"enabled": True}}}}, "'L4' does not match pattern"),
    ({"workers": {"pools": {"a-name-that-is-too-long-for-pods": {}}}}, "does not match pattern"),
    (common(clusterCache={"enabled": True, "url": "bucket"}), "'/workers/common/clusterCache/url'"),
    (common(preloadModels=["a,b"]), "'/workers/common/preloadModels/0'"),
    ({"autoscaling": {"queueDepthActivation": 0}}, "'/autoscaling/queueDepthActivation': minimum"),
    ({"autoscaling": {"prometheusAddress": "prometheus:9090"}}, "'/autoscaling/prometheusAddress'"),
    ({"router": {"auth": {"mode": "token"}}}, "value must be one of 'none', 'static'"),
    ({"router": {"service": {"type": "ExternalName"}}}, "'/router/service/type': value must be one of"),
    ({"router": {"image": {"digest": "latest"}}}, "'/router/image/digest'"),
    ({"imageRegistry": "https://images.example.com"}, "'/imageRegistry'"),
    ({"global": {"imageRegistry": "https://images.example.com"}}, "'/global/imageRegistry'"),
    ({"router": {"image": {"registry": "a: b"}}}, "'/router/image/registry'"),
    (common(image={"repository": "{{ .Values.x }}"}), "'/workers/common/image/repository'"),
    ({"ingress": {"host": "https://sie.example.com"}}, "'/ingress/host'"),
    ({"ingress": {"paths": ["v1"]}}, "'/ingress/paths/0'"),
    ({"logging": {"level": "info"}}, "'/logging/level': value must be one of"),
    ({"serviceMonitor": {"interval": 15}}, "'/serviceMonitor/interval': got number, want string"),
    ({"fullnameOverride": "a-name-that-is-too-long-for-pods"}, "'/fullnameOverride'"),
    (
        {"fullnameOverride": "a-pool-b"},
        "'a-pool-b' looks like the name of a pool that tenants reserve in a release 'a'",
    ),
    ({"keda": {"install": "yes"}}, "'/keda/install': got string, want boolean"),
    ({"auth": {"oauth2Proxy": {"oidcIssuerUrl": "auth.example.com"}}}, "'/auth/oauth2Proxy/oidcIssuerUrl'"),
    # Between values:
    ({"hfToken": {"create": True}}, "hfToken.value is empty (is HF_TOKEN set in your shell?)"),
    ({"hfToken": {"create": True, "value": "x", "existingSecret": "y"}}, "exclude each other"),
    ({"router": {"auth": {"mode": "static"}}}, "set router.auth.tokenSecretName"),
    ({"router": {"auth": {"tokenSecretName": "tokens"}}}, "nobody would be asked for a token"),
    ({"router": {"auth": STATIC}}, "Prometheus could not read /metrics"),
    ({"ingress": {"enabled": True, "tls": {"enabled": True}}}, "needs ingress.host"),
    ({"ingress": {"tls": {"enabled": True}}}, "no effect without ingress.enabled"),
    ({"ingress": SITE, "auth": {"enabled": True}}, "needs auth.oauth2Proxy.oidcIssuerUrl"),
    ({"auth": {"enabled": True, "oauth2Proxy": ISSUER}}, "needs ingress.enabled and ingress.host"),
    ({"auth": {"oauth2Proxy": {"secret": {"proxySecretKey": "PROXY"}}}}, "no effect without auth.enabled"),
    ({"ingress": SITE, "gateway": GATEWAY, "auth": {"enabled": True, "oauth2Proxy": ISSUER}}, "a way around it"),
    (
        {
            "ingress": SITE,
            "auth": {"enabled": True, "oauth2Proxy": ISSUER},
            "router": {"auth": {**STATIC, "exemptOperational": True}},
        },
        "exclude each other",
    ),
    ({"gateway": {"enabled": True}}, "needs gateway.parentRefs"),
    (pools(l4={"minReplicas": 11}), "workers.pools.l4.maxReplicas is 10, less than its minReplicas 11"),
    ({"autoscaling": {"enabled": False}}, "nobody would ever start a worker"),
    (pools(own={}), "workers.pools.own.resources.requests.cpu is missing"),
    (pools(l4={"spot": True}), "chooses no spot nodes"),
    (
        pools(other={"machineProfile": "l4", "resources": SIZE}),
        "pools l4 and other have the same machine profile and bundle",
    ),
    ({"workers": {"pools": {"l4": {"enabled": False}}}}, "no pool is enabled"),
    (common(clusterCache={"enabled": True}), "needs workers.common.clusterCache.url"),
    (common(drainSeconds=58), "less than drainSeconds + preStopSeconds + 5"),
    (common(spotDrainSeconds=25), "less than spotDrainSeconds + preStopSeconds + 5"),
    ({"router": {"drainSeconds": 400}}, "less than drainSeconds + preStopSeconds + 5"),
    ({"catalog": {"modelsConfigMap": "models"}}, "go together; one is missing"),
    (pools(cpu={"machineProfile": "L4"}), "pools cpu and l4 have the same machine profile and bundle"),
    ({"router": {"podLabels": {"app.kubernetes.io/component": "x"}}}, "by which the chart finds its pods"),
    (common(podLabels={"sie.superlinked.com/bundle": "x"}), "by which the chart finds its pods"),
    ({"serviceMonitor": {"enabled": True, "interval": "9s"}}, "scrapeTimeout is 10s, more than the interval of 9s"),
    ({"serviceMonitor": {"enabled": True, "scrapeTimeout": "1m500ms", "interval": "1m"}}, "more than the interval"),
    ({"serviceAccount": {"name": "sie-router"}}, "the routers' account are both 'sie-router'"),
    (pools(l4={"resources": {"requests": {"nvidia.com/gpu": 2}}}), "set workers.pools.l4.gpu.count"),
    (
        {"workers": {"common": {"image": {"digest": "sha256:" + "0" * 64}}, **pools(cpu={})["workers"]}},
        "the pools need several: cpu-default, cuda12-default",
    ),
    ({"global": {"namespace": "other"}}, "global.namespace is not a value of this chart"),
]


@pytest.mark.parametrize(("values", "said"), MISTAKES)
def test_a_mistake_is_refused_and_named(chart: Chart, values: dict[str, Any], said: str) -> None:
    with pytest.raises(HelmError) as refused:
        chart.render(values)
    assert said in str(refused.value)


def test_a_release_whose_name_is_too_long_says_what_to_do(chart: Chart) -> None:
    with pytest.raises(HelmError, match="set fullnameOverride"):
        chart.render(release="a-release-with-quite-a-long-name")


def test_null_takes_away_what_another_file_gave(chart: Chart) -> None:
    label, body = "node.kubernetes.io/instance-type", "nginx.ingress.kubernetes.io/proxy-body-size"
    values = {
        **pools(l4={"nodeSelector": {label: None, "rack": "a"}}),
        "ingress": {"enabled": True, "annotations": {body: None}},
    }
    (chart.scratch / "mine.json").write_text(json.dumps(values))
    objects = chart.render(None, *overlay("values-eks.yaml"), "-f", str(chart.scratch / "mine.json"))
    assert pod_spec(only(objects, "StatefulSet"))["nodeSelector"] == {"rack": "a"}
    assert body not in only(objects, "Ingress")["metadata"]["annotations"]


def test_null_for_a_pool_takes_away_the_label_that_all_pools_have(chart: Chart) -> None:
    values = {"workers": {"common": {"nodeSelector": {"rack": "a", "team": "b"}}, **pools(cpu={})["workers"]}}
    values["workers"]["pools"]["l4"] = {"nodeSelector": {"rack": None}}
    objects = chart.render(values)
    found = {
        each["metadata"]["name"]: pod_spec(each)["nodeSelector"] for each in objects if each["kind"] == "StatefulSet"
    }
    assert found == {"sie-worker-l4": {"team": "b"}, "sie-worker-cpu": {"rack": "a", "team": "b"}}


def schema_of(part: Any) -> Any:
    """The part, or what it refers to."""
    return SCHEMA["$defs"][part["$ref"].rsplit("/", 1)[1]] if "$ref" in part else part


def optional(values: dict[str, Any], part: Any) -> dict[str, Any]:
    """Null for every value that the schema lets one leave out, as a values file."""
    found: dict[str, Any] = {}
    for key, value in values.items():
        own = schema_of(part["properties"][key])
        if key not in part.get("required", ()):
            found[key] = None
        elif isinstance(value, dict) and own.get("additionalProperties") is False:
            found[key] = optional(value, own)
    return found


def test_every_value_may_be_null_or_the_schema_asks_for_it(chart: Chart) -> None:
    values = yaml.safe_load((SOURCE / "values.yaml").read_text())
    parts = {"keda", "kube-prometheus-stack", "dcgm-exporter"}
    nothing = optional({key: value for key, value in values.items() if key not in parts}, SCHEMA)
    l4 = {key: None for key in values["workers"]["pools"]["l4"] if key not in {"enabled", "resources"}}
    nothing["workers"]["pools"] = {"l4": l4}
    assert only(chart.render(nothing), "StatefulSet")
    with pytest.raises(HelmError, match="'/router': missing property 'replicas'"):
        chart.render({"router": {"replicas": None}})


def test_the_schema_knows_every_value_and_no_other() -> None:
    def check(values: Any, part: Any, path: str) -> None:
        part = schema_of(part)
        if part.get("additionalProperties") is not False or values == {}:  # empty: nothing but what is said elsewhere
            return
        assert isinstance(values, dict), path
        assert set(values) == set(part["properties"]), path
        for key, value in values.items():
            check(value, part["properties"][key], f"{path}.{key}")

    values = yaml.safe_load((SOURCE / "values.yaml").read_text())
    check({**values, "keda-crds": {}}, SCHEMA, "")
    check(values["workers"]["pools"]["l4"], SCHEMA["$defs"]["pool"], "workers.pools.l4")
