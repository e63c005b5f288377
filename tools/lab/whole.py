"""What our chart is installed on: a node, names, a Prometheus that obeys ServiceMonitors, a bucket, and all images.

`whole` starts it in the namespaces of `inside.py`; `Lab.attached` joins one that runs there already, as `make lab-up`
leaves it. Nothing of ours is installed yet, nor KEDA: it comes with our chart, or by itself (`charts/keda`).
"""

import hashlib
import os
import subprocess
from collections.abc import Generator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import httpx
import msgspec
import yaml

from lab import bucket, monitors, node
from lab.api import Api, Refused
from lab.binaries import TOOLS, built, cache_folder
from lab.daemon import wait_until
from lab.image import pack
from lab.images import IMAGES, ROOT, built_image
from lab.inside import ADDRESS
from lab.nameserver import NameServer
from lab.programs import CLUSTER, program

CHARTS: Final = Path(__file__).resolve().parent / "charts"
KINDS: Final = ROOT / "tests/deploy/kinds"
KEDA_IMAGE: Final = f"registry.local/keda:{TOOLS['keda-operator'].version.removeprefix('v')}"
PROMETHEUS: Final = f"http://{ADDRESS}:{monitors.PORT}"
KEDA_PROGRAMS: Final = ("keda-operator", "keda-adapter")
NEEDED: Final = (*KEDA_PROGRAMS, "kubectl", "helm")


class CommandError(RuntimeError):
    """kubectl or helm refused; the message is the command and what it said."""


@dataclass(frozen=True, slots=True)
class Lab:
    """A running cluster: its API as an administrator sees it, and the commands that users type."""

    api: Api
    kubeconfig: Path
    logs: Path
    containerd: Path
    bucket: Path

    @classmethod
    @contextmanager
    def attached(cls, state: Path) -> Generator["Lab"]:
        """The one that wrote this file, until the block ends."""
        found = msgspec.json.decode(state.read_bytes(), type=dict[str, str])
        kubeconfig = Path(found["kubeconfig"])
        with closing(Api.of(kubeconfig)) as api:
            yield cls(api, kubeconfig, Path(found["logs"]), Path(found["containerd"]), Path(found["bucket"]))

    def kubectl(self, *arguments: str) -> str:
        """What kubectl prints.

        Raises:
            CommandError: it fails.
        """
        return self._run("kubectl", arguments)

    def helm(self, *arguments: str) -> str:
        """What helm prints.

        Raises:
            CommandError: it fails.
        """
        return self._run("helm", arguments)

    @contextmanager
    def prometheus_gone(self) -> Generator[None]:
        """Without Prometheus until the block ends; it comes back with what it knew."""
        self._switch_prometheus("0")
        wait_until(lambda: not _answers(f"{PROMETHEUS}/-/ready"))
        try:
            yield
        finally:
            self._switch_prometheus("1")
            wait_until(lambda: _answers(f"{PROMETHEUS}/-/ready"))

    def _switch_prometheus(self, replicas: str) -> None:
        switch = {"metadata": {"name": monitors.SWITCH}, "data": {"replicas": replicas}}
        try:
            self.api.create(monitors.SWITCHES, switch)
        except Refused:
            self.api.replace(f"{monitors.SWITCHES}/{monitors.SWITCH}", switch)

    def tag_image(self, reference: str, tag: str) -> None:
        """Make an image known to the node by one more tag."""
        name = f"docker.io/library/{reference}"
        command = ["ctr", "--address", str(self.containerd), "--namespace", "k8s.io", "images", "tag", "--force", name]
        subprocess.run([*command, f"{name.rpartition(':')[0]}:{tag}"], check=True, capture_output=True)

    @property
    def environment(self) -> dict[str, str]:
        """For programs that find the cluster as kubectl does."""
        return {**os.environ, "KUBECONFIG": str(self.kubeconfig)}

    def _run(self, name: str, arguments: Sequence[str]) -> str:
        command = [str(built(name)), *arguments]
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=self.environment)
        if done.returncode != 0:
            raise CommandError(f"{name} {' '.join(arguments)}:\n{done.stdout}{done.stderr}")
        return done.stdout


@contextmanager
def whole(logs: Path) -> Generator[Path]:
    """Run it until the block ends; the file that `Lab.attached` wants.

    Raises:
        BuildError: a program or an image is not built yet.
        MissingError: a program of the distribution is not installed.
        DaemonError: a program does not come up; the end of its log is in the message.
    """
    for name in CLUSTER:
        program(name)
    for name in NEEDED:
        built(name)
    archives = [_keda_archive(), *map(built_image, IMAGES)]
    with ExitStack() as stack:
        data = Path(stack.enter_context(TemporaryDirectory(ignore_cleanup_errors=True)))
        cluster = stack.enter_context(node.cluster(logs, archives))
        api = cluster.plane.admin
        for file in KINDS.glob("*.yaml"):
            api.create("/apis/apiextensions.k8s.io/v1/customresourcedefinitions", yaml.safe_load(file.read_text()))
        stack.enter_context(closing(NameServer(api, ADDRESS)))
        stack.enter_context(closing(monitors.Monitoring(api, ADDRESS, data, logs)))
        _publish(api, monitors.NAMESPACE, "prometheus-operated", monitors.PORT)
        bucket.fill(data / "bucket")
        stack.callback(bucket.Bucket(data / "bucket", ADDRESS, logs).daemon.stop)
        state = data / "lab.json"
        known = {
            "kubeconfig": cluster.plane.kubeconfig,
            "logs": logs,
            "containerd": cluster.node.containerd,
            "bucket": data / "bucket",
        }
        state.write_bytes(msgspec.json.encode({name: str(path) for name, path in known.items()}))
        yield state


def _answers(url: str) -> bool:
    try:
        return httpx.get(url, trust_env=False).is_success
    except httpx.TransportError:
        return False


def _keda_archive() -> Path:
    """KEDA's two programs as one image, packed once."""
    binaries = {f"/{name}": built(name) for name in KEDA_PROGRAMS}
    digest = hashlib.sha256(" ".join(map(str, binaries.values())).encode()).hexdigest()[:12]
    archive = cache_folder() / f"keda-{digest}.tar"
    if not archive.exists():
        partial = archive.with_suffix(".partial")
        pack(KEDA_IMAGE, binaries, [next(iter(binaries))], partial)
        partial.replace(archive)
    return archive


def _publish(api: Api, namespace: str, service: str, port: int) -> None:
    """A headless Service, in a new namespace, whose one endpoint is a process beside the pods."""
    api.create("/api/v1/namespaces", {"metadata": {"name": namespace}})
    ports = [{"name": "web", "port": port}]
    services = f"/api/v1/namespaces/{namespace}/services"
    api.create(services, {"metadata": {"name": service}, "spec": {"clusterIP": "None", "ports": ports}})
    endpoints: Mapping[str, Any] = {
        "metadata": {"name": service, "labels": {"kubernetes.io/service-name": service}},
        "addressType": "IPv4",
        "endpoints": [{"addresses": [ADDRESS], "conditions": {"ready": True}}],
        "ports": ports,
    }
    api.create(f"/apis/discovery.k8s.io/v1/namespaces/{namespace}/endpointslices", endpoints)
