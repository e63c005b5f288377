"""One issuer and one worker for the whole run, and a site for each way to sign in."""

from collections.abc import Generator
from contextlib import closing
from typing import Any

import pytest

from access_site import SECRET, Around, Site
from chart_render import prepared
from kube_cluster import run_workers
from oidc_issuer import Issuer, issuing
from sie_cli.ports import Ports


@pytest.fixture(scope="session")
def around(tmp_path_factory: pytest.TempPathFactory) -> Generator[Around]:
    folder = tmp_path_factory.mktemp("access")
    with (
        closing(Ports()) as ports,
        run_workers(1, folder, ports) as (worker,),
        issuing(ports.take(), SECRET["OAUTH2_PROXY_CLIENT_ID"]) as issuer,
    ):
        yield Around(prepared(folder), worker.url, issuer, ports, folder)


def _oidc(issuer: Issuer, **secret: str) -> dict[str, Any]:
    proxy = {"oidcIssuerUrl": issuer.url, "secret": secret}
    return {"auth": {"enabled": True, "oauth2Proxy": proxy}}


@pytest.fixture(scope="session")
def one_caller(around: Around) -> Generator[Site]:
    """OIDC as the seed's values have it: all who signed in are one caller."""
    with around.site("one", _oidc(around.issuer)) as site:
        yield site


@pytest.fixture(scope="session")
def users(around: Around) -> Generator[Site]:
    """OIDC with a password between the proxy and routers, which tell users apart."""
    with around.site("users", _oidc(around.issuer, proxySecretKey="PROXY")) as site:
        yield site


@pytest.fixture(scope="session")
def tokens(around: Around) -> Generator[Site]:
    """Static tokens, and no proxy."""
    auth = {"mode": "static", "tokenSecretName": "sie-router-auth", "exemptOperational": "metrics"}
    with around.site("tokens", {"router": {"auth": auth}}) as site:
        yield site
