"""Real routers and workers around a real Kubernetes API, without a node: the test plays kubelet and controllers."""

import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Generator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import httpx

from lab.control_plane import Kubernetes, ServiceAccount
from lab.daemon import Daemon
from sie_cli.ports import Ports

COMMANDS: Final = Path(sys.executable).parent
ROLE: Final = Path(__file__).resolve().parents[2] / "deploy/helm/sie-cluster/files/router-role.yaml"
MODEL: Final = "sie/hash-64"
BODY: Final = {"items": [{"text": "a test"}]}
PROFILE: Final = "l4"
SERVICE: Final = "sie-worker"
PORT_NAME: Final = "http"
ON_LOOPBACK: Final = "198.18.0.1"  # of a range for measuring, which no network uses
OWN: Final[Mapping[str, str]] = dict(os.environ)  # noqa: TID251 - what a child of a test runs in


@contextmanager
def worker_address() -> Generator[str]:
    """An address of this machine for workers. The API refuses loopback's own in an EndpointSlice.

    Root gives the loopback device one more, which nobody outside can reach. Others take the address that this machine
    is known by; nothing is sent to find it: connecting a datagram socket only looks up the route.
    """
    ip = shutil.which("ip")
    if os.geteuid() != 0 or ip is None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            probe.connect(("203.0.113.1", 9))
            yield str(probe.getsockname()[0])
        return
    subprocess.run([ip, "address", "replace", f"{ON_LOOPBACK}/32", "dev", "lo"], check=True)
    try:
        yield ON_LOOPBACK
    finally:
        subprocess.run([ip, "address", "del", f"{ON_LOOPBACK}/32", "dev", "lo"], check=True)


@dataclass(frozen=True, slots=True)
class Worker:
    """A running `sie-server` with the model that needs no weights."""

    name: str
    address: str
    port: int

    @property
    def url(self) -> str:
        """Where routers find it."""
        return f"http://{self.address}:{self.port}"

    def has_answered(self) -> bool:
        """True once the model is loaded, so that no test meets a worker that is still loading."""
        return httpx.post(f"{self.url}/v1/encode/{MODEL}", json=BODY).is_success

    def endpoint_slice(self, *, terminating: bool = False) -> dict[str, Any]:
        """What a cluster says about a pod of this worker; ports differ here, addresses do not."""
        conditions = {"ready": not terminating, "serving": True, "terminating": terminating}
        return {
            "metadata": {"name": self.name, "labels": {"kubernetes.io/service-name": SERVICE}},
            "addressType": "IPv4",
            "endpoints": [{"addresses": [self.address], "conditions": conditions}],
            "ports": [{"name": PORT_NAME, "port": self.port, "protocol": "TCP"}],
        }


@dataclass(frozen=True, slots=True)
class Router:
    """A running `sie-router` that finds its workers through the API."""

    daemon: Daemon
    http: httpx.Client
    port: int

    @property
    def url(self) -> str:
        """Where clients find it."""
        return f"http://127.0.0.1:{self.port}"

    def workers(self) -> set[str]:
        """URLs of the workers that are known and healthy."""
        return {each["url"] for each in self.http.get("/health").json()["workers"] if each["healthy"]}

    def encode(self) -> int:
        """Status of one request."""
        return self.http.post(f"/v1/encode/{MODEL}", json=BODY).status_code


@dataclass(slots=True)
class Site:
    """One namespace: where its slices are written, who its routers are."""

    kubernetes: Kubernetes
    namespace: str
    account: ServiceAccount
    ports: Ports
    logs: Path
    routers: list[Router] = field(default_factory=list)

    @property
    def slices(self) -> str:
        """The collection of EndpointSlices."""
        return f"/apis/discovery.k8s.io/v1/namespaces/{self.namespace}/endpointslices"

    def add(self, worker: Worker) -> None:
        """A pod appeared."""
        self.kubernetes.admin.create(self.slices, worker.endpoint_slice())

    def terminate(self, worker: Worker) -> None:
        """A pod was told to end."""
        self.kubernetes.admin.patch(f"{self.slices}/{worker.name}", worker.endpoint_slice(terminating=True))

    def remove(self, worker: Worker) -> None:
        """A pod is gone."""
        self.kubernetes.admin.delete(f"{self.slices}/{worker.name}")

    def start_router(self, *, port: int | None = None, lease_s: float | None = None) -> Router:
        """One more replica; ready to be asked, whatever it knows of workers. `port`: of one that is gone."""
        port = self.ports.take() if port is None else port
        environment = None if lease_s is None else {**OWN, "SIE_ROUTER_LEASE_S": str(lease_s)}
        flags = {"--port": str(port), "--host": "127.0.0.1", "--group": f"{PROFILE}:default"}
        flags |= {"--k8s-service": SERVICE, "--k8s-port": PORT_NAME, "--kubeconfig": str(self.account.kubeconfig)}
        command = [
            str(COMMANDS / "sie-router"),
            "serve",
            "--kubernetes",
            *(text for pair in flags.items() for text in pair),
        ]
        log = self.logs / f"router-{len(self.routers)}.log"
        daemon = Daemon("sie-router", command, log, environment)
        router = Router(daemon, httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60), port)
        self.routers.append(router)
        router.daemon.wait_until(lambda: router.http.get("/healthz").is_success)
        return router

    def tail(self) -> str:
        """The last lines of every router's log."""
        return "\n".join(router.daemon.tail() for router in self.routers)

    def close(self) -> None:
        """End every router."""
        for router in self.routers:
            router.http.close()
            router.daemon.stop()


@contextmanager
def run_workers(count: int, logs: Path, ports: Ports) -> Generator[list[Worker]]:
    """Workers that no test changes, so all tests share them."""
    workers: list[Worker] = []
    with worker_address() as address, ExitStack() as stack:
        for number in range(count):
            worker = Worker(f"worker-{number}", address, ports.take())
            command = [str(COMMANDS / "sie-server"), "serve", "--host", address, "--port", str(worker.port)]
            environment = {**OWN, "SIE_MACHINE_PROFILE": PROFILE, "POD_NAME": worker.name}
            command += ["--device", "cpu", "--models", MODEL]
            daemon = Daemon(worker.name, command, logs / f"{worker.name}.log", environment)
            stack.callback(daemon.stop)
            daemon.wait_until(worker.has_answered)
            workers.append(worker)
        yield workers
