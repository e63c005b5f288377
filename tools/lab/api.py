"""The Kubernetes API as one identity sees it: a blocking client of a few lines for tests and scripts.

Paths are those of the API itself, for example `/api/v1/namespaces/default/configmaps`.
"""

import ssl
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import httpx
import msgspec

Object = dict[str, Any]
TIMEOUT_S: Final = 30.0
MERGE_PATCH: Final = "application/merge-patch+json"


class Refused(Exception):  # noqa: N818 - it is the API's answer, not a fault
    """The API answered with a Status object instead of what was asked for."""

    def __init__(self, status: Object) -> None:
        super().__init__(status.get("message"))
        self.code = int(status["code"])
        self.reason = str(status.get("reason"))


class Api:
    """Requests of one identity: of the client certificate in the TLS context, or of a bearer token."""

    def __init__(self, url: str, tls: ssl.SSLContext, token: str | None = None) -> None:
        headers = {} if token is None else {"Authorization": f"Bearer {token}"}
        self._http = httpx.Client(base_url=url, verify=tls, headers=headers, timeout=TIMEOUT_S, trust_env=False)

    @classmethod
    def of(cls, kubeconfig: Path) -> "Api":
        """For the user of a kubeconfig that `control_plane` wrote."""
        config = msgspec.json.decode(kubeconfig.read_bytes(), type=Object)
        cluster, user = config["clusters"][0]["cluster"], config["users"][0]["user"]
        tls = ssl.create_default_context(cafile=cluster["certificate-authority"])
        if "client-certificate" in user:
            tls.load_cert_chain(user["client-certificate"], user["client-key"])
        return cls(cluster["server"], tls, user.get("token"))

    def close(self) -> None:
        """Close its connections."""
        self._http.close()

    def get(self, path: str, **parameters: str) -> Object:
        """An object or a list."""
        return self._answer("GET", path, params=parameters)

    def create(self, path: str, item: Mapping[str, Any]) -> Object:
        """POST to a collection; the object as stored."""
        return self._answer("POST", path, json=item)

    def replace(self, path: str, item: Mapping[str, Any]) -> Object:
        """PUT an object."""
        return self._answer("PUT", path, json=item)

    def patch(self, path: str, change: Mapping[str, Any]) -> Object:
        """Merge a change into an object (RFC 7396)."""
        return self._answer("PATCH", path, content=msgspec.json.encode(change), headers={"Content-Type": MERGE_PATCH})

    def delete(self, path: str) -> Object:
        """Delete an object, without waiting for finalizers."""
        return self._answer("DELETE", path)

    def is_ready(self) -> bool:
        """True once the API serves."""
        return self._http.get("/readyz").is_success

    @contextmanager
    def watch(self, path: str, resource_version: str, **parameters: str) -> Generator[Generator[Object]]:
        """Events after a version, as `{"type": ..., "object": ...}`, until the block ends.

        Raises:
            Refused: at the first event, when the server says ERROR instead (410 for a version that is gone).
        """
        wanted = {**parameters, "watch": "true", "resourceVersion": resource_version}
        with self._http.stream("GET", path, params=wanted) as response:
            if response.is_error:
                raise Refused(msgspec.json.decode(response.read(), type=Object))
            yield _events(response)

    def _answer(self, method: str, path: str, **arguments: Any) -> Object:
        response = self._http.request(method, path, **arguments)
        answer = msgspec.json.decode(response.content, type=Object)
        if response.is_error:
            raise Refused(answer)
        return answer


def _events(response: httpx.Response) -> Generator[Object]:
    for line in response.iter_lines():
        event = msgspec.json.decode(line, type=Object)
        if event["type"] == "ERROR":
            raise Refused(event["object"])
        yield event
