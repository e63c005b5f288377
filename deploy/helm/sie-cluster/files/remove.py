# noqa: INP001 - run by itself, out of the chart
"""Delete the objects that a release leaves behind, and wait until they are gone.

`remove.py COLLECTION ...` runs in a pod around `helm uninstall`, in the image of the router; it needs only Python's
standard library. A collection is a path of the Kubernetes API with a selector, such as
`/apis/keda.sh/v1alpha1/namespaces/sie/scaledobjects?labelSelector=app.kubernetes.io/instance=sie`.
"""

import json
import ssl
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ADDRESS = "https://kubernetes.default.svc"
ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
DEADLINE_S = 120.0
EVERY_S = 0.5
NOT_FOUND = 404


def call(method: str, url: str, account: Path) -> Any:
    """One request with the account's token; None where the API does not know the kind."""
    head = {"Authorization": f"Bearer {(account / 'token').read_text()}"}
    trusted = ssl.create_default_context(cafile=str(account / "ca.crt"))
    request = urllib.request.Request(url, method=method, headers=head)  # noqa: S310 - the address is ours, and https
    try:
        with urllib.request.urlopen(request, timeout=10, context=trusted) as answer:  # noqa: S310 - the same
            return json.load(answer)
    except urllib.error.HTTPError as error:
        if error.code == NOT_FOUND:
            return None
        raise


def remove(url: str, account: Path) -> Sequence[str]:
    """Names of what is still there at the deadline."""
    call("DELETE", url, account)
    deadline = time.monotonic() + DEADLINE_S
    while left := [item["metadata"]["name"] for item in (call("GET", url, account) or {"items": ()})["items"]]:
        if time.monotonic() > deadline:
            return left
        time.sleep(EVERY_S)
    return ()


def main(collections: Sequence[str], address: str = ADDRESS, account: Path = ACCOUNT) -> int:
    """Exit code."""
    left = [name for collection in collections for name in remove(address + collection, account)]
    if left:
        sys.stderr.write(f"still there: {', '.join(left)}; a finalizer holds them, is its controller running?\n")
    return 1 if left else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
