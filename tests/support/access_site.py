"""Sign-in as a cluster has it: nginx, oauth2-proxy and a router as the chart renders them, before a worker."""

import base64
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import httpx

from chart_render import Chart, Object, container, environment, only
from ingress_nginx import configuration
from kube_cluster import COMMANDS, OWN, PROFILE
from lab.binaries import built
from lab.daemon import Daemon
from lab.programs import program
from oidc_issuer import Issuer
from sie_cli.ports import Ports

SECRET: Final = {
    "OAUTH2_PROXY_CLIENT_ID": "sie",
    "OAUTH2_PROXY_CLIENT_SECRET": "of-the-client",
    "OAUTH2_PROXY_COOKIE_SECRET": base64.b64encode(bytes(24)).decode(),
    "PROXY": "of-the-proxy-" + "0" * 36,
    "SIE_AUTH_TOKEN": "token-a,token-b",
}


@dataclass(frozen=True, slots=True)
class Site:
    """What callers see: the address of the ingress, and who issues their tokens."""

    url: str
    router: str
    issuer: Issuer


@dataclass(frozen=True, slots=True)
class Around:
    """What does not depend on the chart's values."""

    chart: Chart
    worker: str
    issuer: Issuer
    ports: Ports
    folder: Path

    @contextmanager
    def site(self, name: str, values: dict[str, Any]) -> Iterator[Site]:
        """The chart with these values, running."""
        folder = self.folder / name
        folder.mkdir()
        router, proxy, ingress = (self.ports.take() for _ in range(3))
        url = f"http://127.0.0.1:{ingress}"
        common = {"ingress": {"enabled": True, "host": "sie.test"}}
        rendered = self.chart.render(common | values)
        with ExitStack() as stack:
            command = [str(COMMANDS / "sie-router"), "serve", "-w", self.worker, "--group", f"{PROFILE}:default"]
            command += ["--group", "a100-40gb:default", "--host", "127.0.0.1", "--port", str(router)]
            given = {
                key: value
                for key, value in variables(only(rendered, "Deployment", "sie-router")).items()
                if "AUTH" in key
            }
            daemon = Daemon("sie-router", command, folder / "router.log", {**OWN, **given})
            stack.callback(daemon.stop)
            daemon.wait_until(lambda: httpx.get(f"http://127.0.0.1:{router}/readyz").is_success)
            if "auth" in values:
                pods = only(rendered, "Deployment", "sie-oauth2-proxy")
                own = {"--http-address": f"127.0.0.1:{proxy}", "--redirect-url": f"{url}/oauth2/callback"}
                flags = [each for each in container(pods)["args"] if each.split("=")[0] not in own]
                command = [str(built("oauth2-proxy")), *flags, *(f"{flag}={value}" for flag, value in own.items())]
                daemon = Daemon("oauth2-proxy", command, folder / "proxy.log", {**OWN, **variables(pods)})
                stack.callback(daemon.stop)
                daemon.wait_until(lambda: httpx.get(f"http://127.0.0.1:{proxy}/ready").is_success)
            services = {"sie-router": router, "sie-oauth2-proxy": proxy}
            ingresses = [each for each in rendered if each["kind"] == "Ingress"]
            file = folder / "nginx.conf"
            file.write_text(configuration(ingresses, services, folder, ingress))
            daemon = Daemon("nginx", [nginx(), "-e", str(folder / "nginx.log"), "-c", str(file)], folder / "nginx.out")
            stack.callback(daemon.stop)
            daemon.wait_until(lambda: httpx.get(f"{url}/").status_code > 0)
            yield Site(url, f"http://127.0.0.1:{router}", self.issuer)


def nginx() -> str:
    """Debian's."""
    found = program("nginx")
    said = subprocess.run([found, "-V"], capture_output=True, text=True, check=True).stderr
    assert "http_auth_request_module" in said, "this nginx has no auth_request module"
    return found


def variables(workload: Object) -> dict[str, str]:
    """What the kubelet would set, Secrets included, but for what only it knows."""
    found = environment(workload).items()
    said = {name: value for name, value in found if isinstance(value, str)}
    return said | {name: SECRET[each["secretKeyRef"]["key"]] for name, each in found if "secretKeyRef" in each}
