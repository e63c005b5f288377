"""A whole Kubernetes with one node that runs pods: the control plane, its controllers, containerd, kubelet, kube-proxy.

Runs only in the namespaces of `inside.py`.
"""

import os
import socket
import subprocess
from collections.abc import Generator, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import httpx
import msgspec

from lab.binaries import built
from lab.control_plane import SERVICE_RANGE, Kubernetes, kubernetes
from lab.daemon import Daemon, wait_until
from lab.image import pack
from lab.inside import ADDRESS
from lab.pki import KeyPair
from lab.programs import NODE as NEEDED
from lab.programs import program
from sie_cli.ports import HOST

PROGRAMS: Final = (
    "etcd",
    "kube-apiserver",
    "kube-controller-manager",
    "kube-scheduler",
    "kubelet",
    "kube-proxy",
    "pause",
)
NODE: Final = "lab"
POD_RANGE: Final = "10.244.0.0/16"
NODE_RANGE: Final = "10.244.0.0/24"
PAUSE_IMAGE: Final = "registry.local/pause:1"
CNI_PLUGINS: Final = Path("/usr/lib/cni")


class Node:
    """One node. `containerd` is its socket."""

    def __init__(self, plane: Kubernetes, data: Path, logs: Path, stack: ExitStack) -> None:
        self._plane = plane
        self._data = data
        self._logs = logs
        self._stack = stack
        self.containerd = data / "containerd.sock"

    def start(self, archives: Iterable[Path] = ()) -> None:
        """Start everything, each after what it needs; returns once the node is Ready and has the images.

        Raises:
            DaemonError: something does not come up.
        """
        self._start_controllers()
        self._start_containerd()
        with ThreadPoolExecutor(thread_name_prefix="import") as pool:  # large images take longer than the rest
            imports = [pool.submit(self.import_image, archive) for archive in archives]
            self._start_kubelet()
            self._start_proxy()
            wait_until(self._is_ready)
            for each in imports:
                each.result()

    def import_image(self, archive: Path) -> None:
        """Make an image known to the node; pods use it with `imagePullPolicy: IfNotPresent` or `Never`."""
        command = ["ctr", "--address", str(self.containerd), "--namespace", "k8s.io", "images", "import", str(archive)]
        subprocess.run(command, check=True, capture_output=True)

    def _identity(self, user: str) -> Path:
        return self._plane.certified_kubeconfig(user, self._plane.files.authority.sign(user))

    def _is_ready(self) -> bool:
        nodes = self._plane.admin.get("/api/v1/nodes")["items"]
        conditions = [each for node in nodes for each in node["status"].get("conditions", ())]
        return any(each["type"] == "Ready" and each["status"] == "True" for each in conditions)

    def _run(self, name: str, command: list[str], healthy: str = "") -> Daemon:
        daemon = Daemon(name, command, self._logs / f"{name}.log")
        self._stack.callback(daemon.stop)
        if healthy:
            daemon.wait_until(lambda: _is_healthy(healthy))
        return daemon

    def _start_controllers(self) -> None:
        files = self._plane.files
        for name, port, more in (
            (
                "kube-controller-manager",
                10257,
                [
                    f"--service-account-private-key-file={files.token_key}",
                    f"--root-ca-file={files.authority.files.certificate}",
                    f"--cluster-signing-cert-file={files.authority.files.certificate}",
                    f"--cluster-signing-key-file={files.authority.files.key}",
                    "--use-service-account-credentials=true",
                    f"--cluster-cidr={POD_RANGE}",
                    "--allocate-node-cidrs=false",
                    f"--service-cluster-ip-range={SERVICE_RANGE}",
                    "--enable-hostpath-provisioner=true",
                ],
            ),
            ("kube-scheduler", 10259, []),
        ):
            config = self._identity(f"system:{name}")
            common = [f"--{use}kubeconfig={config}" for use in ("", "authentication-", "authorization-")]
            command = [str(built(name)), *common, f"--bind-address={HOST}", "--leader-elect=false", *more]
            self._run(name, command, f"https://{HOST}:{port}/healthz")

    def _start_containerd(self) -> None:
        plugins = self._data / "cni"
        plugins.mkdir()
        (plugins / "10-lab.conflist").write_bytes(msgspec.json.encode(_network(self._data / "addresses")))
        config = self._data / "containerd.toml"
        config.write_text(_containerd(self._data, self.containerd, plugins))
        daemon = self._run("containerd", [program("containerd"), "--config", str(config)])
        daemon.wait_until(lambda: _listens(self.containerd))
        archive = self._data / "pause.tar"
        pack(PAUSE_IMAGE, {"pause": built("pause")}, ["/pause"], archive)
        self.import_image(archive)

    def _start_kubelet(self) -> None:
        user, authority = f"system:node:{NODE}", self._plane.files.authority
        keys = authority.sign(user, groups=["system:nodes"], addresses=[NODE, ADDRESS])
        config = self._data / "kubelet.json"
        config.write_bytes(
            msgspec.json.encode(_kubelet(authority.files, keys, self._data, self._logs, self.containerd))
        )
        kubeconfig = self._plane.certified_kubeconfig(user, keys)
        command = [str(built("kubelet")), f"--config={config}", f"--kubeconfig={kubeconfig}"]
        command += [f"--root-dir={self._data / 'kubelet'}", f"--hostname-override={NODE}", f"--node-ip={ADDRESS}"]
        self._run("kubelet", command, f"http://{HOST}:10248/healthz")

    def _start_proxy(self) -> None:
        config = self._identity("system:kube-proxy")
        command = [str(built("kube-proxy")), f"--kubeconfig={config}", f"--hostname-override={NODE}"]
        command += ["--proxy-mode=nftables", f"--cluster-cidr={POD_RANGE}", "--conntrack-max-per-core=0"]
        command += [f"--bind-address={ADDRESS}"]
        self._run("kube-proxy", command, f"http://{HOST}:10256/healthz")


@dataclass(frozen=True, slots=True)
class Cluster:
    """A control plane, and the one node it commands."""

    plane: Kubernetes
    node: Node


@contextmanager
def cluster(logs: Path, archives: Iterable[Path] = ()) -> Generator[Cluster]:
    """Run the control plane and the node, which has these images, until the block ends.

    Raises:
        BuildError: a program is not built yet.
        MissingError: a program of the distribution is not installed.
        DaemonError: a program does not come up; the end of its log is in the message.
    """
    for name in NEEDED:
        program(name)
    for name in PROGRAMS:
        built(name)
    with ExitStack() as stack:
        data = Path(stack.enter_context(TemporaryDirectory(ignore_cleanup_errors=True)))
        plane = stack.enter_context(kubernetes(logs, ADDRESS))
        node = Node(plane, data, logs, stack)
        node.start(archives)
        yield Cluster(plane, node)


def _is_healthy(url: str) -> bool:
    # Each server makes its own certificate for this port.
    return httpx.get(url, verify=False, trust_env=False).is_success  # noqa: S501 - nothing is told and nothing believed


def _listens(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as probe:
        return probe.connect_ex(str(path)) == 0


def _network(addresses: Path) -> dict[str, Any]:
    """A bridge of all pods of the node."""
    ranges = {"type": "host-local", "dataDir": str(addresses), "ranges": [[{"subnet": NODE_RANGE}]]}
    bridge = {"type": "bridge", "bridge": "cni0", "isGateway": True, "hairpinMode": True}
    bridge["ipam"] = {**ranges, "routes": [{"dst": "0.0.0.0/0"}]}
    ports = {"type": "portmap", "capabilities": {"portMappings": True}}
    return {"cniVersion": "0.4.0", "name": "lab", "plugins": [bridge, ports]}


def _containerd(data: Path, listen: Path, plugins: Path) -> str:
    """restrict_oom_score_adj: without CAP_SYS_RESOURCE no sandbox starts otherwise."""
    return f"""
version = 2
root = "{data}/containerd"
state = "{data}/containerd-state"
[grpc]
  address = "{listen}"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{PAUSE_IMAGE}"
  stream_server_address = "127.0.0.1"
  tolerate_missing_hugetlb_controller = true
  disable_apparmor = true
  restrict_oom_score_adj = true
  netns_mounts_under_state_dir = true
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
  runtime_type = "io.containerd.runc.v2"
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
  SystemdCgroup = false
  BinaryName = "{program("runc")}"
[plugins."io.containerd.grpc.v1.cri".cni]
  bin_dir = "{CNI_PLUGINS}"
  conf_dir = "{plugins}"
"""


def _kubelet(authority: KeyPair, keys: KeyPair, data: Path, logs: Path, containerd: Path) -> dict[str, Any]:
    resolver = data / "resolv.conf"
    resolver.write_text(f"nameserver {ADDRESS}\n")
    return {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "failCgroupV1": False,
        "failSwapOn": False,
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": f"/{os.environ.get('SIE_LAB_GROUP', '')}",
        "containerRuntimeEndpoint": f"unix://{containerd}",
        "address": ADDRESS,
        "authentication": {
            "anonymous": {"enabled": False},
            "webhook": {"enabled": True},
            "x509": {"clientCAFile": str(authority.certificate)},
        },
        "authorization": {"mode": "Webhook"},
        "tlsCertFile": str(keys.certificate),
        "tlsPrivateKeyFile": str(keys.key),
        "clusterDomain": "cluster.local",
        "clusterDNS": [ADDRESS],  # where `nameserver` listens
        "resolvConf": str(resolver),
        "podLogsDir": str(logs / "pods"),
        "volumePluginDir": str(data / "volume-plugins"),
        "imageGCHighThresholdPercent": 100,  # an image that was imported cannot be pulled again
        "imageGCLowThresholdPercent": 99,
        "evictionHard": {"memory.available": "200Mi", "nodefs.available": "2%", "imagefs.available": "2%"},
        "enforceNodeAllocatable": ["pods"],
        "oomScoreAdj": 0,
    }
