"""The proxies that are compared: each a process with kept connections to one worker, and as few other duties as ours.

`vllm-router` chooses in turn, as every policy does with one worker; its retries and breaker stay on, as ours do.
"""

import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from environments import installed
from servers import free_port

VLLM_ROUTER = "vllm-router 0.1.17"
NGINX = """
worker_processes 1; daemon off; master_process off; pid {folder}/nginx.pid; error_log {folder}/nginx.log;
events {{ worker_connections 4096; }}
http {{
  access_log off; client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy;
  fastcgi_temp_path {folder}/f; uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;
  keepalive_requests 1000000000;
  upstream worker {{ server 127.0.0.1:{upstream}; keepalive 128; keepalive_requests 1000000000; }}
  server {{
    listen 127.0.0.1:{port};
    location / {{ proxy_pass http://worker; proxy_http_version 1.1; proxy_set_header Connection ""; }}
  }}
}}
"""
HAPROXY = """
global
  nbthread 1
defaults
  mode http
  timeout connect 5s
  timeout client 60s
  timeout server 60s
  http-reuse always
frontend in
  bind 127.0.0.1:{port}
  default_backend worker
backend worker
  server one 127.0.0.1:{upstream} pool-max-conn 128
"""


@dataclass(frozen=True, slots=True)
class Proxy:
    """One proxy to measure: `command` starts it on a port in front of the worker at another one."""

    name: str
    command: Callable[[Path, int, int], list[str]]
    path: str


def sie_router(*more: str) -> Callable[[Path, int, int], list[str]]:
    """This project's router."""

    def command(_: Path, port: int, upstream: int) -> list[str]:
        program = str(Path(sys.executable).with_name("sie-router"))
        flags = ["--group", "l4:default", "-h", "127.0.0.1", "-p", str(port), "-w", f"http://127.0.0.1:{upstream}"]
        return [program, "serve", *flags, *more]

    return command


def nginx(folder: Path, port: int, upstream: int) -> list[str]:
    """One worker process of nginx."""
    (folder / "nginx.conf").write_text(NGINX.format(folder=folder, port=port, upstream=upstream))
    return [program("nginx"), "-e", "/dev/null", "-c", str(folder / "nginx.conf")]


def haproxy(folder: Path, port: int, upstream: int) -> list[str]:
    """One thread of HAProxy."""
    (folder / "haproxy.cfg").write_text(HAPROXY.format(port=port, upstream=upstream))
    return [program("haproxy"), "-db", "-f", str(folder / "haproxy.cfg")]


def vllm_router(_: Path, port: int, upstream: int) -> list[str]:
    """The Rust router of the vLLM project."""
    bin_dir = installed(VLLM_ROUTER, "3.11", [VLLM_ROUTER.replace(" ", "==")])
    flags = ["--host", "127.0.0.1", "--port", str(port), "--worker-urls", f"http://127.0.0.1:{upstream}"]
    quiet = ["--policy", "round_robin", "--log-level", "error", "--prometheus-port", str(free_port())]
    return [str(bin_dir / "vllm-router"), *flags, *quiet]


def program(name: str) -> str:
    """Where a system package put its command.

    Raises:
        SystemExit: it is not installed.
    """
    found = shutil.which(name) or shutil.which(name, path="/usr/sbin")
    if found is None:
        raise SystemExit(f"this benchmark needs {name}; install it: apt-get install {name}")
    return found


def version(name: str) -> str:
    """What a command says of itself, in one line."""
    said = subprocess.run([program(name), "-v"], capture_output=True, text=True, check=False)
    return (said.stdout + said.stderr).strip().splitlines()[0]
