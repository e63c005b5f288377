# noqa: INP001 - run by itself, out of the chart
"""Delete the ScaledObjects of a release and wait until KEDA let them go.

`remove_scaled_objects.py NAMESPACE RELEASE [ADDRESS FOLDER]` runs in a pod before `helm uninstall`, in the image of the
router; it needs only Python's standard library.
"""

import json
import ssl
import sys
import time
import urllib.parse
import urllib.request
from pathlib import Path
from typing import Any

ADDRESS = "https://kubernetes.default.svc"
ACCOUNT = "/var/run/secrets/kubernetes.io/serviceaccount"
DEADLINE_S = 120.0
EVERY_S = 0.5


def call(method: str, url: str, account: Path) -> Any:
    """One request with the account's token."""
    head = {"Authorization": f"Bearer {(account / 'token').read_text()}"}
    trusted = ssl.create_default_context(cafile=str(account / "ca.crt"))
    request = urllib.request.Request(url, method=method, headers=head)  # noqa: S310 - the address is ours, and https
    with urllib.request.urlopen(request, timeout=10, context=trusted) as answer:  # noqa: S310 - the same
        return json.load(answer)


def main(namespace: str, release: str, address: str = ADDRESS, account: str = ACCOUNT) -> int:
    """Exit code."""
    selector = urllib.parse.urlencode({"labelSelector": f"app.kubernetes.io/instance={release}"})
    url = f"{address}/apis/keda.sh/v1alpha1/namespaces/{namespace}/scaledobjects?{selector}"
    call("DELETE", url, Path(account))
    deadline = time.monotonic() + DEADLINE_S
    while left := [item["metadata"]["name"] for item in call("GET", url, Path(account))["items"]]:
        if time.monotonic() > deadline:
            sys.stderr.write(f"KEDA does not let go of {', '.join(left)}; is its operator running?\n")
            return 1
        time.sleep(EVERY_S)
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
