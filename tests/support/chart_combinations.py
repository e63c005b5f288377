"""Values that people set, each a combination by name: every one of them must render, and an API server accept it."""

from typing import Any, Final

SECRET_AUTH: Final = {"auth": {"mode": "static", "tokenSecretName": "tokens", "metricsTokenSecretKey": "METRICS"}}
SITE: Final = {"enabled": True, "host": "sie.example.com"}
TLS: Final = {**SITE, "tls": {"enabled": True, "secretName": "sie-tls"}}
ISSUER: Final = {"oidcIssuerUrl": "https://auth.example.com/realms/sie"}
ENV: Final = [{"name": "OTEL_SERVICE_NAME", "value": "sie"}]
TOLERATIONS: Final = [{"key": "dedicated", "operator": "Equal", "value": "sie", "effect": "NoSchedule"}]
SIZE: Final = {each: {"cpu": "2", "memory": "4Gi"} for each in ("requests", "limits")}
LABELS: Final = {"team": "search"}
SCHEDULING: Final = {
    "podAnnotations": {"example.com/a": "1"},
    "podLabels": LABELS,
    "nodeSelector": LABELS,
    "tolerations": TOLERATIONS,
    "affinity": {"nodeAffinity": {}},
    "topologySpreadConstraints": [{"maxSkew": 2, "topologyKey": "rack", "whenUnsatisfiable": "ScheduleAnyway"}],
    "priorityClassName": "high",
    "extraEnv": ENV,
}


def common(**values: Any) -> dict[str, Any]:
    """Values of `workers.common`."""
    return {"workers": {"common": values}}


def pools(**each: dict[str, Any]) -> dict[str, Any]:
    """Values of `workers.pools`."""
    return {"workers": {"pools": {name.replace("_", "-"): {"enabled": True, **pool} for name, pool in each.items()}}}


COMBINATIONS: Final[dict[str, dict[str, Any]]] = {
    "defaults": {},
    "all pools": pools(cpu={}, l4={}, a100_40gb={}, a100_80gb={}),
    "cpu only": {"workers": {"pools": {"cpu": {"enabled": True}, "l4": {"enabled": False}}}},
    "a pool of one's own": pools(t4={"maxReplicas": 2, "gpu": {"count": 1}, "costRank": 5, "resources": SIZE}),
    "two bundles on one profile": pools(l4_other={"machineProfile": "l4", "bundle": "other", "resources": SIZE}),
    "many GPUs": pools(l4={"gpu": {"count": 8}}),
    "warm pool": pools(l4={"minReplicas": 2, "maxReplicas": 2}),
    "spot": {
        "workers": {
            "common": {"spotNodeSelector": {"spot": "true"}, "spotTolerations": TOLERATIONS},
            "pools": {"l4": {"spot": True}},
        }
    },
    "product label": common(gpuProductLabel="nvidia.com/gpu.product"),
    "pool placement": pools(l4={"nodeSelector": LABELS, "tolerations": TOLERATIONS, "extraEnv": ENV}),
    "platform": common(platform="cpu"),
    "no autoscaling": {"autoscaling": {"enabled": False}, **pools(l4={"minReplicas": 2})},
    "no fallback": {"autoscaling": {"fallbackReplicas": 0}},
    "scaling of a pool": pools(l4={"autoscaling": {"fallbackReplicas": 1, "cooldownPeriod": 300}}),
    "autoscaling tuned": {
        "autoscaling": {
            "prometheusAddress": "http://prometheus.example.com:9090",
            "pollingInterval": 5,
            "cooldownPeriod": 300,
            "scaleDownStabilization": 60,
            "queueDepthThreshold": 4,
            "queueDepthActivation": 1,
            "fallbackReplicas": 20,
            "metricLabels": {"job": "sie"},
        }
    },
    "volume claims": common(cachePersistence={"enabled": True, "storageClass": "fast"}, cacheVolumeSize="1Ti"),
    "cache size": common(cacheVolumeSize="100Gi", ephemeralStorageRequest="100Gi"),
    "cluster cache": common(clusterCache={"enabled": True, "url": "gs://bucket/models", "write": True}),
    "no hub": common(hfFallback=False),
    "preload": common(preloadModels=["BAAI/bge-m3", "sie/hash-64"]),
    "worker scheduling": common(**SCHEDULING, runtimeClassName="nvidia"),
    "drains": common(drainSeconds=100, preStopSeconds=0, terminationGracePeriodSeconds=200),
    "router scheduling": {"router": SCHEDULING},
    "one router": {"router": {"replicas": 1}},
    "many routers": {"router": {"replicas": 9, "podDisruptionBudget": {"maxUnavailable": "25%"}}},
    "load balancer": {"router": {"service": {"type": "LoadBalancer", "port": 80, "annotations": {"internal": "yes"}}}},
    "tokens": {"router": SECRET_AUTH},
    "tokens and admin": {"router": {"auth": {**SECRET_AUTH["auth"], "adminTokenSecretKey": "ADMIN"}}},
    "open metrics": {
        "router": {"auth": {"mode": "static", "tokenSecretName": "tokens", "exemptOperational": "metrics"}},
        "serviceMonitor": {"enabled": True},
    },
    "scraped with a token": {"router": SECRET_AUTH, "serviceMonitor": {"enabled": True}},
    "ingress without a name": {"ingress": {"enabled": True}},
    "ingress": {"ingress": {**SITE, "annotations": {"nginx.ingress.kubernetes.io/proxy-body-size": "1m"}}},
    "ingress with TLS": {"ingress": TLS},
    "sign-in": {"ingress": SITE, "auth": {"enabled": True, "oauth2Proxy": ISSUER}},
    "sign-in with TLS": {
        "ingress": TLS,
        "auth": {
            "enabled": True,
            "oauth2Proxy": {**ISSUER, "replicas": 1, "extraJwtIssuers": ["https://a.example.com=sie"]},
        },
    },
    "gateway": {"gateway": {"enabled": True, "parentRefs": [{"name": "web"}], "hostnames": ["sie.example.com"]}},
    "hub token": {"hfToken": {"create": True, "value": "hf_x"}},
    "hub token of one's own": {"hfToken": {"existingSecret": "hub", "key": "HF"}},
    "models of one's own": {"catalog": {"modelsConfigMap": "models", "bundlesConfigMap": "bundles"}},
    "no policies": {"networkPolicy": {"enabled": False}},
    "policies": {
        "networkPolicy": {
            "monitoringNamespace": "monitoring",
            "extraRouterFrom": [{"podSelector": {}}],
            "extraWorkerFrom": [{"podSelector": {}}],
        },
        "ingress": SITE,
        "auth": {"enabled": True, "oauth2Proxy": ISSUER},
    },
    "monitoring": {
        "serviceMonitor": {"enabled": True, "labels": LABELS},
        "alertRules": {"enabled": True, "labels": LABELS, "runbookUrl": "https://docs.example.com/"},
        "dashboards": {"enabled": True},
    },
    "accounts of one's own": {
        "serviceAccount": {"create": False, "name": "mine"},
        "router": {"serviceAccount": {"create": False, "name": "mine"}},
        "rbac": {"create": False},
    },
    "registry": {"imageRegistry": "images.example.com:5000/sie", "global": {"imagePullSecrets": ["pull"]}},
    "mirror": {"global": {"imageRegistry": "images.example.com"}},
    "digests": {"router": {"image": {"digest": "sha256:" + "0" * 64, "pullPolicy": "Always"}}},
    "another name": {"fullnameOverride": "search", "nameOverride": "sie"},
    "bundled": {
        "keda": {"install": True},
        "kube-prometheus-stack": {"install": True},
        "dcgm-exporter": {"install": True},
    },
    "text logs": {"logging": {"level": "DEBUG", "json": False}},
}
