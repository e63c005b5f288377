"""Small programs that speak what `sie-router serve` and `sie-server serve` speak, for tests of starting and stopping.

`python stand_ins.py router|server serve ...`. A router says what its file of facts says (`SIE_TEST_DEMAND`: lines of
`profile pool value`); a server answers its probes. `SIE_TEST_CRASH` names a process that ends with status 3 at once;
`SIE_TEST_STUBBORN` one that ignores SIGTERM; `SIE_TEST_UNREADY` a file, and until it is there none is ready.
"""

import argparse
import os
import signal
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path


class Answers(BaseHTTPRequestHandler):
    """200 to everything, but `/readyz` of who is not ready; `/metrics` tells the demand."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        body = metrics() if self.path == "/metrics" else b"ok"
        wanted = os.environ.get("SIE_TEST_UNREADY")  # noqa: TID251 - as below
        is_ready = not wanted or Path(wanted).exists()
        self.send_response(200 if is_ready or self.path != "/readyz" else 503)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Keep the log for what `main` says."""


def metrics() -> bytes:
    path = os.environ.get("SIE_TEST_DEMAND", "")  # noqa: TID251 - this program is a child process of a test
    lines = Path(path).read_text().splitlines() if path else []
    facts = (line.split() for line in lines)
    text = (
        f'sie_router_pending_demand{{machine_profile="{profile}",bundle="default",pool="{pool}"}} {value}\n'
        for profile, pool, value in facts
    )
    return "".join(text).encode()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("kind", choices=["router", "server"])
    parser.add_argument("command", choices=["serve"])
    parser.add_argument("--host", required=True)
    parser.add_argument("--port", type=int, required=True)
    options, _ = parser.parse_known_args()
    environ = os.environ  # noqa: TID251 - as above
    name = environ["POD_NAME"] if options.kind == "server" else "router"
    place = f" of {environ['SIE_MACHINE_PROFILE']}/{environ['SIE_BUNDLE']}" if options.kind == "server" else ""
    sys.stdout.write(f"{name}{place} speaks\n")
    sys.stdout.flush()
    if environ.get("SIE_TEST_CRASH") == name:
        sys.exit(3)
    if environ.get("SIE_TEST_STUBBORN") == name:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    ThreadingHTTPServer((options.host, options.port), Answers).serve_forever()


if __name__ == "__main__":
    main()
