"""Wrong values are refused, with words that say what is wrong."""

from typing import Any

import pytest
import yaml

from chart_combinations import ISSUER, SITE, SIZE, common, pools
from chart_render import SOURCE, Chart, HelmError

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
    (pools(l4={"nodeSelector": {"spot": True}}), "'/workers/pools/l4/nodeSelector/spot': got boolean, want string"),
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
]


@pytest.mark.parametrize(("values", "said"), MISTAKES)
def test_a_mistake_is_refused_and_named(chart: Chart, values: dict[str, Any], said: str) -> None:
    with pytest.raises(HelmError) as refused:
        chart.render(values)
    assert said in str(refused.value)


def test_a_release_whose_name_is_too_long_says_what_to_do(chart: Chart) -> None:
    with pytest.raises(HelmError, match="set fullnameOverride"):
        chart.render(release="a-release-with-quite-a-long-name")


def test_the_schema_knows_every_value_and_no_other() -> None:
    schema = yaml.safe_load((SOURCE / "values.schema.json").read_text())

    def check(values: Any, part: Any, path: str) -> None:
        part = schema["$defs"][part["$ref"].rsplit("/", 1)[1]] if "$ref" in part else part
        if part.get("additionalProperties") is not False or values == {}:  # empty: nothing but what is said elsewhere
            return
        assert isinstance(values, dict), path
        assert set(values) == set(part["properties"]), path
        for key, value in values.items():
            check(value, part["properties"][key], f"{path}.{key}")

    values = yaml.safe_load((SOURCE / "values.yaml").read_text())
    check({**values, "keda-crds": {}}, schema, "")
    check(values["workers"]["pools"]["l4"], schema["$defs"]["pool"], "workers.pools.l4")
