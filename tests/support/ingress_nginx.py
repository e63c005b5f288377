"""What ingress-nginx makes of Ingress objects, as far as ours go: a configuration of plain nginx.

Each annotation becomes what ingress-nginx's documentation and its template say (kubernetes.github.io/ingress-nginx,
"Annotations" and "External OAuth Authentication"). Two things differ: services are ports of this machine, and the
site is not on port 80, so `$host` in the address of the sign-in has the port as well.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

PREFIX: Final = "nginx.ingress.kubernetes.io/"
KNOWN: Final = frozenset(
    {
        "auth-response-headers",
        "auth-signin",
        "auth-url",
        "proxy-body-size",
        "proxy-read-timeout",
        "proxy-request-buffering",
        "proxy-send-timeout",
    }
)
CONF: Final = """
worker_processes 1; daemon off; pid {folder}/nginx.pid; error_log {folder}/error.log;
events {{ worker_connections 256; }}
http {{
  access_log off; client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy;
  fastcgi_temp_path {folder}/fastcgi; uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;
  map $http_upgrade $connection_upgrade {{ default upgrade; '' ''; }}
  server {{
    listen 127.0.0.1:{port};
{locations}
  }}
}}
"""
PROXY: Final = """
      client_max_body_size {body};
      proxy_request_buffering {buffering};
      proxy_buffering off;
      proxy_http_version 1.1;
      proxy_read_timeout {read}s;
      proxy_send_timeout {send}s;
      proxy_set_header Host $http_host;
      proxy_set_header Upgrade $http_upgrade;
      proxy_set_header Connection $connection_upgrade;
      proxy_set_header X-Real-IP $remote_addr;
      proxy_set_header X-Forwarded-For $remote_addr;
      proxy_set_header X-Forwarded-Host $http_host;
      proxy_set_header X-Forwarded-Proto $scheme;
      proxy_set_header Proxy "";
      proxy_pass http://127.0.0.1:{upstream};
"""
AUTH: Final = """
    location = /_external-auth-{number} {{
      internal;
      client_max_body_size {body};
      proxy_pass_request_body off;
      proxy_set_header Content-Length "";
      proxy_set_header Host {host};
      proxy_set_header X-Original-URL $scheme://$http_host$request_uri;
      proxy_set_header X-Original-Method $request_method;
      proxy_set_header X-Sent-From nginx-ingress-controller;
      proxy_set_header X-Real-IP $remote_addr;
      proxy_set_header X-Forwarded-For $remote_addr;
      proxy_set_header X-Auth-Request-Redirect $request_uri;
      proxy_http_version 1.1;
      proxy_pass http://127.0.0.1:{upstream}{path};
    }}
"""


def configuration(ingresses: Sequence[Mapping[str, Any]], services: Mapping[str, int], folder: Path, port: int) -> str:
    """An nginx that listens on `port` of 127.0.0.1; `services` are the ports that stand for them, by name.

    Raises:
        ValueError: an annotation whose meaning is not written down here.
    """
    locations = [
        text for number, ingress in enumerate(ingresses) for text in _locations(ingress, services, number, port)
    ]
    return CONF.format(folder=folder, port=port, locations="".join(locations))


def _locations(ingress: Mapping[str, Any], services: Mapping[str, int], number: int, port: int) -> list[str]:
    annotations = ingress["metadata"].get("annotations", {})
    said = {name.removeprefix(PREFIX): value for name, value in annotations.items() if name.startswith(PREFIX)}
    if unknown := set(said) - KNOWN:
        raise ValueError(f"what ingress-nginx makes of {sorted(unknown)} is not known here")
    body = said.get("proxy-body-size", "1m")  # its default
    auth, found = "", []
    if "auth-url" in said:
        url = urlsplit(said["auth-url"])
        upstream = services[str(url.hostname).split(".", 1)[0]]
        found.append(AUTH.format(number=number, body=body, host=url.hostname, upstream=upstream, path=url.path))
        auth = (
            f"auth_request /_external-auth-{number};\n      auth_request_set $auth_cookie $upstream_http_set_cookie;\n"
        )
        auth += "      add_header Set-Cookie $auth_cookie;\n"
        for place, header in enumerate(filter(None, said.get("auth-response-headers", "").split(","))):
            variable = "$upstream_http_" + header.strip().lower().replace("-", "_")
            auth += f"      auth_request_set $authHeader{place} {variable};\n"
            auth += f"      proxy_set_header {header.strip()} $authHeader{place};\n"
    if "auth-signin" in said:
        target = said["auth-signin"].replace("$host", f"$host:{port}").replace("$escaped_request_uri", "$request_uri")
        found.append(f"    location @signin-{number} {{ internal; add_header Set-Cookie $auth_cookie; ")
        found.append(f"return 302 {target}; }}\n")
        auth += f"      error_page 401 = @signin-{number};\n"
    proxy = {
        "body": body,
        "buffering": said.get("proxy-request-buffering", "on"),
        "read": said.get("proxy-read-timeout", "60"),
        "send": said.get("proxy-send-timeout", "60"),
    }
    for rule in ingress["spec"]["rules"]:
        for path in rule["http"]["paths"]:
            to = services[path["backend"]["service"]["name"]]
            inside = f"{{\n      {auth}{PROXY.format(**proxy, upstream=to)}    }}\n"
            found.extend(f"    location {matched} {inside}" for matched in _matched(path))
    return found


def _matched(path: Mapping[str, Any]) -> list[str]:
    """Kubernetes' `Prefix` is of whole segments: the path itself, and what lies below it."""
    place = path["path"].rstrip("/")
    if path["pathType"] == "Exact":
        return [f"= {path['path']}"]
    return [f"= {place}", f"{place}/"] if place else ["/"]
