# noqa: INP001 - run by itself, out of the chart
"""`helm test`: does a router answer, and does Prometheus answer every query of the autoscaler with one number?

Runs in the image of the router; needs only Python's standard library. The environment says what to ask: ROUTER is an
address or empty, PROMETHEUS the same, QUERIES a JSON object of queries by name.
"""

import json
import os
import sys
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping

TIMEOUT_S = 10
ADVICE = "is serviceMonitor.enabled, and do autoscaling.prometheusAddress and autoscaling.metricLabels fit?"


def ask(url: str) -> tuple[str, bytes]:
    """What is wrong, or nothing, and the body of the answer."""
    try:
        with urllib.request.urlopen(url, timeout=TIMEOUT_S) as answer:  # noqa: S310 - addresses of the chart's values
            return "", answer.read()
    except (urllib.error.URLError, TimeoutError) as error:
        return f"{url.partition('?')[0]}: {error}", b""


def query(address: str, text: str) -> str:
    """What is wrong with this query's answer, or nothing."""
    wrong, body = ask(f"{address}/api/v1/query?{urllib.parse.urlencode({'query': text})}")
    if wrong:
        return wrong
    count = len(json.loads(body)["data"]["result"])
    return "" if count == 1 else f"{count} series instead of one for {text}; {ADVICE}"


def findings(environ: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """What was asked, and what is wrong with it, or nothing."""
    if router := environ.get("ROUTER"):
        yield "router", ask(f"{router}/readyz")[0]
    if prometheus := environ.get("PROMETHEUS"):
        for name, text in json.loads(environ["QUERIES"]).items():
            yield name, query(prometheus, text)


def main(environ: Mapping[str, str]) -> int:
    """Exit code."""
    found = list(findings(environ))
    for what, wrong in found:
        sys.stdout.write(f"{what}: {wrong or 'ok'}\n")
    return 1 if any(wrong for _, wrong in found) else 0


if __name__ == "__main__":
    sys.exit(main(os.environ))  # noqa: TID251 - the pod's settings
