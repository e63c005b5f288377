"""A real Kubernetes API on loopback ports: etcd and kube-apiserver with their own certificates, RBAC and tokens.

Without more there is no node and no controller: objects are stored, validated, watched and guarded, and nothing acts
on them. `node` adds those.
"""

import ssl
from collections.abc import Generator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import msgspec

from lab.api import Api
from lab.audit import POLICY, Asked, Right, asked_by, rights
from lab.binaries import built
from lab.daemon import Daemon, wait_until
from lab.etcd import Etcd
from lab.pki import Authority, KeyPair, make_authority, make_signing_key
from sie_cli.ports import HOST, Ports

PROGRAMS: Final = ("etcd", "kube-apiserver")
ISSUER: Final = "https://kubernetes.default.svc"
SERVICE_RANGE: Final = "10.96.0.0/16"
FIRST_SERVICE: Final = "10.96.0.1"  # the API's own
SERVICE_NAMES: Final = ("kubernetes.default", "kubernetes.default.svc")
ADVERTISED: Final = "192.0.2.1"  # loopback is refused here; a documentation address, because nothing dials it
FRONT_PROXY: Final = "front-proxy-client"
TOKEN_LIFETIME_S: Final = 3600
RBAC: Final = "/apis/rbac.authorization.k8s.io/v1"
REVIEWS: Final = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"


@dataclass(frozen=True, slots=True)
class ServiceAccount:
    """An identity whose rights are what RBAC gives it, and nothing else."""

    namespace: str
    name: str
    api: Api
    kubeconfig: Path

    def may(self, right: Right) -> bool:
        """What the API would say to such a request in the account's namespace."""
        attributes = {"namespace": self.namespace, **asdict(right)}
        review = self.api.create(REVIEWS, {"spec": {"resourceAttributes": attributes}})
        return bool(review["status"]["allowed"])


@dataclass(frozen=True, slots=True)
class Files:
    """Certificates and keys."""

    authority: Authority
    server: KeyPair
    admin: KeyPair
    token_key: Path
    audit_policy: Path
    front_proxy: KeyPair
    front_proxy_authority: Authority


class Kubernetes:
    """A running API server on a store. `kubernetes` below starts and stops both.

    `admin` may do anything; `kubeconfig` is the same identity for other programs. `node` is the address at which pods
    reach this server.
    """

    def __init__(self, etcd: Etcd, port: int, data: Path, logs: Path, node: str | None = None) -> None:
        self.etcd = etcd
        self._node = node
        self.url = f"https://{node or HOST}:{port}"
        self._data = data
        self._logs = logs
        self._audit_log = data / "audit.log"
        self.files = _make_files(data, node or HOST)
        admin = self.files.admin
        tls = self._trust()
        tls.load_cert_chain(admin.certificate, admin.key)
        self.admin = Api(self.url, tls)
        self.kubeconfig = self.certified_kubeconfig("admin", admin)
        self._clients = [self.admin]
        self._daemon = self._spawn()

    def wait_until_ready(self) -> None:
        """Return once the API serves, its own roles included.

        Raises:
            DaemonError: it does not come up.
        """
        self._daemon.wait_until(self.admin.is_ready)

    def stop_api(self, *, crash: bool = False) -> None:
        """End the API server and every open watch; what it stored stays."""
        (self._daemon.kill if crash else self._daemon.stop)()

    def start_api(self) -> None:
        """Start the API server again at the same address, if it does not run; returns once it serves."""
        if not self._daemon.is_running:
            self._daemon = self._spawn()
        self.wait_until_ready()

    def service_account(self, namespace: str, name: str) -> ServiceAccount:
        """Create a service account, with a token of its own; it may do nothing until a role is bound to it."""
        path = f"/api/v1/namespaces/{namespace}/serviceaccounts"
        self.admin.create(path, {"metadata": {"name": name}})
        request = {"spec": {"expirationSeconds": TOKEN_LIFETIME_S}}
        token = self.admin.create(f"{path}/{name}/token", request)["status"]["token"]
        kubeconfig = self._write_kubeconfig(name, {"token": token}, namespace)
        return ServiceAccount(namespace, name, self.client(token), kubeconfig)

    def certified_kubeconfig(self, user: str, keys: KeyPair) -> Path:
        """A kubeconfig for the user whom this certificate names."""
        credentials = {"client-certificate": str(keys.certificate), "client-key": str(keys.key)}
        return self._write_kubeconfig(user, credentials)

    def client(self, token: str) -> Api:
        """A client for whoever this token stands for; closed with the control plane."""
        api = Api(self.url, self._trust(), token)
        self._clients.append(api)
        return api

    def bind(self, account: ServiceAccount, rules: Sequence[Mapping[str, Any]]) -> None:
        """Give an account these rules of a Role in its namespace; returns once the API follows them."""
        path = f"{RBAC}/namespaces/{account.namespace}"
        metadata = {"name": account.name}
        role = {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": account.name}
        subject = {"kind": "ServiceAccount", "name": account.name, "namespace": account.namespace}
        self.admin.create(f"{path}/roles", {"metadata": metadata, "rules": rules})
        binding = {"metadata": metadata, "roleRef": role, "subjects": [subject]}
        self.admin.create(f"{path}/rolebindings", binding)
        wait_until(lambda: all(map(account.may, rights(rules))))

    def asked_by(self, account: ServiceAccount) -> list[Asked]:
        """What this account asked for in its namespace so far, allowed or not."""
        return asked_by(self._audit_log, account.namespace, account.name)

    def restart_api(self) -> None:
        """A crash, and the next start."""
        self.stop_api(crash=True)
        self.start_api()

    def tail(self) -> str:
        """The last lines of both logs."""
        return f"{self.etcd.daemon.tail()}\n{self._daemon.tail()}"

    def close(self) -> None:
        """End the API server and every client that was handed out."""
        self._daemon.stop()
        for api in self._clients:
            api.close()

    def _trust(self) -> ssl.SSLContext:
        return ssl.create_default_context(cafile=self.files.authority.files.certificate)

    def _write_kubeconfig(self, user: str, credentials: dict[str, str], namespace: str = "default") -> Path:
        cluster = {"server": self.url, "certificate-authority": str(self.files.authority.files.certificate)}
        config: dict[str, Any] = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "lab", "cluster": cluster}],
            "users": [{"name": user, "user": credentials}],
            "contexts": [{"name": "lab", "context": {"cluster": "lab", "user": user, "namespace": namespace}}],
            "current-context": "lab",
        }
        path = self._data / f"{user.replace(':', '-')}.{namespace}.kubeconfig"
        path.write_bytes(msgspec.json.encode(config))  # JSON is YAML
        return path

    def _spawn(self) -> Daemon:
        files = self.files
        command = [
            str(built("kube-apiserver")),
            f"--etcd-servers={self.etcd.url}",
            f"--secure-port={self.url.rsplit(':', 1)[1]}",
            f"--service-cluster-ip-range={SERVICE_RANGE}",
            f"--cert-dir={self._data}",
            f"--client-ca-file={files.authority.files.certificate}",
            f"--tls-cert-file={files.server.certificate}",
            f"--tls-private-key-file={files.server.key}",
            "--authorization-mode=Node,RBAC",
            f"--audit-policy-file={files.audit_policy}",
            f"--audit-log-path={self._audit_log}",
            f"--service-account-issuer={ISSUER}",
            f"--service-account-key-file={files.token_key}",
            f"--service-account-signing-key-file={files.token_key}",
            *(_for_nobody() if self._node is None else _for_a_node(self._node, files)),
        ]
        return Daemon("kube-apiserver", command, self._logs / "kube-apiserver.log")


def _for_nobody() -> list[str]:
    return [f"--bind-address={HOST}", f"--advertise-address={ADVERTISED}", "--endpoint-reconciler-type=none"]


def _for_a_node(address: str, files: Files) -> list[str]:
    return [
        f"--bind-address={address}",
        f"--advertise-address={address}",
        "--allow-privileged=true",
        "--enable-admission-plugins=NodeRestriction",
        "--kubelet-preferred-address-types=InternalIP",
        f"--kubelet-certificate-authority={files.authority.files.certificate}",
        f"--kubelet-client-certificate={files.admin.certificate}",
        f"--kubelet-client-key={files.admin.key}",
        "--enable-aggregator-routing=true",  # from here on: how it asks other API servers, such as that of metrics
        f"--requestheader-client-ca-file={files.front_proxy_authority.files.certificate}",
        f"--requestheader-allowed-names={FRONT_PROXY}",
        "--requestheader-extra-headers-prefix=X-Remote-Extra-",
        "--requestheader-group-headers=X-Remote-Group",
        "--requestheader-username-headers=X-Remote-User",
        f"--proxy-client-cert-file={files.front_proxy.certificate}",
        f"--proxy-client-key-file={files.front_proxy.key}",
    ]


@contextmanager
def kubernetes(logs: Path, node: str | None = None) -> Generator[Kubernetes]:
    """Run a control plane until the block ends. Logs stay in the folder; processes, keys and data do not.

    Raises:
        BuildError: a program is not built yet.
        DaemonError: a program does not come up; the end of its log is in the message.
    """
    with ExitStack() as stack:
        data = Path(stack.enter_context(TemporaryDirectory(prefix="sie-lab-")))
        ports = stack.enter_context(closing(Ports()))
        etcd = Etcd(data, logs, ports)
        stack.callback(etcd.daemon.stop)
        etcd.daemon.wait_until(etcd.is_ready)
        plane = stack.enter_context(closing(Kubernetes(etcd, ports.take(), data, logs, node)))
        plane.wait_until_ready()
        yield plane


def _make_files(folder: Path, address: str) -> Files:
    authority, audit_policy = make_authority(folder, "authority"), folder / "audit-policy.json"
    front_proxy_authority = make_authority(folder, "front-proxy-authority")
    audit_policy.write_bytes(msgspec.json.encode(POLICY))
    return Files(
        authority=authority,
        server=authority.sign("kube-apiserver", addresses=[address, "localhost", FIRST_SERVICE, *SERVICE_NAMES]),
        admin=authority.sign("admin", groups=["system:masters"]),
        token_key=make_signing_key(folder / "service-account.key"),
        audit_policy=audit_policy,
        front_proxy=front_proxy_authority.sign(FRONT_PROXY),
        front_proxy_authority=front_proxy_authority,
    )
