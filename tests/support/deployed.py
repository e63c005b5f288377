"""Our chart on a whole cluster: installed as a user would, and what its tests want to know and do."""

import json
import subprocess
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager, suppress
from typing import Any, Final

import httpx

from chart_render import SOURCE, Chart, Object
from lab.api import Refused
from lab.binaries import built
from lab.bucket import URL, environment
from lab.daemon import Daemon, wait_until
from lab.inside import ADDRESS
from lab.whole import PROMETHEUS, CommandError, Lab
from sie_cli.ports import HOST, Ports
from sie_sdk.types import Item

NAME: Final = "sie"
POOL: Final = "cpu"
MODEL: Final = "sentence-transformers/all-MiniLM-L6-v2"
DIMENSIONS: Final = 384
SLOW_S: Final = 300.0  # nothing here takes longer, on a busy machine either
ITEM: Final[Item] = {"text": "hello world"}
# Over the quickstart's values: a pool without GPUs, small machines, a bucket near the workers, short times.
VALUES: Final[Mapping[str, Any]] = {
    "router": {
        "retryAfterSeconds": 2,
        "resources": {"requests": {"cpu": "20m", "memory": "96Mi"}, "limits": {"cpu": "1", "memory": "256Mi"}},
    },
    "workers": {
        "common": {
            "cacheVolumeSize": "2Gi",
            "clusterCache": {"enabled": True, "url": URL},
            "hfFallback": False,
            "sharedMemorySize": "64Mi",
            "extraEnv": [
                {"name": "OMP_NUM_THREADS", "value": "1"},
                *({"name": name, "value": value} for name, value in environment(ADDRESS).items()),
            ],
        },
        "pools": {
            "l4": {"enabled": False},
            POOL: {
                "enabled": True,
                "minReplicas": 0,
                "maxReplicas": 3,
                "resources": {
                    "requests": {"cpu": "50m", "memory": "300Mi"},
                    "limits": {"cpu": "1", "memory": "1500Mi"},
                },
            },
        },
    },
    "serviceMonitor": {"interval": "1s", "scrapeTimeout": "1s"},
    "autoscaling": {
        "pollingInterval": 1,
        "cooldownPeriod": 5,
        "scaleDownStabilization": 5,
        "scaleDownPercent": 100,
        "fallbackReplicas": 1,
    },
}


class Release:
    """One installation. `upgrade` also installs."""

    def __init__(self, lab: Lab, chart: Chart, namespace: str = "sie") -> None:
        self.lab = lab
        self.chart = chart
        self.namespace = namespace
        self._values = chart.scratch / f"{namespace}.json"

    def upgrade(self, more: Mapping[str, Any] | None = None, *arguments: str) -> str:
        """`helm upgrade --install` with VALUES and `more` over them; returns when everything is Ready."""
        files = [SOURCE / "examples/helm-values.yaml", self._values]
        self._values.write_text(json.dumps(merged(VALUES, more or {})))
        given = [each for file in files for each in ("-f", str(file))]
        install = ("upgrade", "--install", NAME, str(self.chart.folder), "-n", self.namespace, "--create-namespace")
        return self.lab.helm(*install, *given, "--wait", f"--timeout={SLOW_S:.0f}s", *arguments)

    def uninstall(self) -> None:
        """`helm uninstall`; returns when the hooks of the chart have run."""
        self.lab.helm("uninstall", NAME, "-n", self.namespace, "--wait", f"--timeout={SLOW_S:.0f}s")

    def close(self) -> None:
        """Remove it, if it is there."""
        with suppress(CommandError):
            self.uninstall()

    @property
    def url(self) -> str:
        """The routers' Service, as pods and the node reach it."""
        spec = self.lab.api.get(f"/api/v1/namespaces/{self.namespace}/services/{NAME}-router")["spec"]
        return f"http://{spec['clusterIP']}:8080"

    @contextmanager
    def forwarded(self) -> Generator[str]:
        """`kubectl port-forward svc/sie-router`, and the address to use meanwhile."""
        ports = Ports()
        port = ports.take()
        command = [str(built("kubectl")), "-n", self.namespace, "port-forward", f"svc/{NAME}-router", f"{port}:8080"]
        daemon = Daemon("port-forward", command, self.lab.logs / "port-forward.log", self.lab.environment)
        url = f"http://{HOST}:{port}"
        try:
            daemon.wait_until(lambda: httpx.get(f"{url}/healthz", trust_env=False).is_success)
            yield url
        finally:
            daemon.stop()
            ports.close()

    def replicas(self, pool: str = POOL) -> int:
        """How many workers the autoscaler wants."""
        return int(self._set(pool)["spec"]["replicas"])

    def workers(self, pool: str = POOL) -> list[Object]:
        """The pods of a pool, those that end too."""
        return self.pods("worker", f"sie.superlinked.com/pool={pool}")

    def container_states(self, pool: str = POOL) -> list[Object]:
        """The state of the container of each worker: waiting, running or terminated."""
        return [each["state"] for pod in self.workers(pool) for each in pod["status"].get("containerStatuses", ())]

    def scaled_object(self, pool: str = POOL) -> dict[str, str]:
        """The conditions of a pool's ScaledObject: Ready, Active, Fallback, Paused."""
        path = f"/apis/keda.sh/v1alpha1/namespaces/{self.namespace}/scaledobjects/{NAME}-worker-{pool}"
        status = self.lab.api.get(path).get("status", {})
        return {each["type"]: each["status"] for each in status.get("conditions", ())}

    def pods(self, component: str, *labels: str) -> list[Object]:
        """The pods of a component."""
        wanted = ",".join((f"app.kubernetes.io/instance={NAME},app.kubernetes.io/component={component}", *labels))
        found: list[Object] = self.lab.api.get(f"/api/v1/namespaces/{self.namespace}/pods", labelSelector=wanted)[
            "items"
        ]
        return found

    def health(self) -> Object:
        """`GET /health` of a router."""
        answer: Object = httpx.get(f"{self.url}/health", trust_env=False, timeout=10).json()
        return answer

    def wait_until_workers(self, count: int, pool: str = POOL, within_s: float = SLOW_S) -> None:
        """Return once the autoscaler wants so many workers, and exactly those run and are Ready."""
        self.wait_until(
            lambda: self.replicas(pool) == count and list(map(is_ready, self.workers(pool))) == [True] * count, within_s
        )

    def wait_until_empty(self, pool: str = POOL, within_s: float = SLOW_S) -> None:
        """Return once a pool has no workers."""
        self.wait_until_workers(0, pool, within_s)

    def wait_until(self, claim: Callable[[], bool], within_s: float = SLOW_S) -> None:
        """Return once the claim holds.

        Raises:
            TimeoutError: it does not in time.
        """
        wait_until(lambda: _holds(claim), within_s)

    def query(self, text: str) -> list[float]:
        """What Prometheus answers now, one number a series."""
        answer = httpx.get(f"{PROMETHEUS}/api/v1/query", params={"query": text}, trust_env=False).json()
        return [float(each["value"][1]) for each in answer["data"]["result"]]

    def tail(self) -> str:
        """What somebody would look at who has to mend it."""
        looks = (
            ("get", "pods,statefulsets,scaledobjects,hpa", "-o", "wide"),
            ("get", "events", "--sort-by=.lastTimestamp"),
            ("logs", f"-l=app.kubernetes.io/instance={NAME}", "--prefix", "--tail=20"),
            ("logs", "-l=app in (keda-operator,keda-operator-metrics-apiserver)", "--prefix", "--tail=20"),
        )
        return "\n".join(map(self._look, looks))

    def _look(self, arguments: tuple[str, ...]) -> str:
        command = [str(built("kubectl")), "-n", self.namespace, *arguments]
        done = subprocess.run(
            command, capture_output=True, text=True, check=False, timeout=60, env=self.lab.environment
        )
        return f"$ kubectl {' '.join(arguments)}\n{done.stdout[-8000:]}{done.stderr[-1000:]}"

    def _set(self, pool: str) -> Object:
        return self.lab.api.get(f"/apis/apps/v1/namespaces/{self.namespace}/statefulsets/{NAME}-worker-{pool}")


def is_ready(pod: Object) -> bool:
    """True for a pod that is Ready and not about to end."""
    conditions = {each["type"]: each["status"] for each in pod["status"].get("conditions", ())}
    return conditions.get("Ready") == "True" and "deletionTimestamp" not in pod["metadata"]


def merged(under: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Two sets of values, as helm merges them."""
    result = dict(under)
    for key, value in over.items():
        below = result.get(key)
        result[key] = merged(below, value) if isinstance(below, Mapping) and isinstance(value, Mapping) else value
    return result


def _holds(claim: Callable[[], bool]) -> bool:
    try:
        return claim()
    except (httpx.TransportError, Refused):
        return False
