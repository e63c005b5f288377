"""Who gets through the ingress of the chart, and as whom; how a refusal reaches the SDK."""

import base64
from collections.abc import Callable

import httpx
import pytest
from cryptography.hazmat.primitives.asymmetric import rsa

from access_site import SECRET, Site
from oidc_issuer import Issuer
from sie_sdk import SIEClient
from sie_sdk.errors import PoolForbiddenError, RequestError

MODEL = "sie/hash-64"
ENCODE = f"/v1/encode/{MODEL}"
BODY = {"items": [{"text": "a test"}]}
TEXT = "x" * 2_000_000


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


def dims(site: Site, token: str) -> int:
    with SIEClient(site.url, api_key=token) as client:
        return int(client.encode(MODEL, {"text": "a test"})["dense"].shape[0])


@pytest.fixture(params=["one_caller", "users"])
def oidc(request: pytest.FixtureRequest) -> Site:
    site: Site = request.getfixturevalue(request.param)
    return site


def test_a_browser_signs_in_once_and_goes_on_where_it_wanted(oidc: Site) -> None:
    with httpx.Client(follow_redirects=True) as browser:
        first = browser.get(f"{oidc.url}/v1/models")
        assert [each.status_code for each in first.history] == [302, 302, 302, 302]
        assert first.url == f"{oidc.url}/v1/models"
        assert first.json()["models"][0]["name"] == MODEL
        assert not browser.post(f"{oidc.url}{ENCODE}", json=BODY).history


def test_a_program_with_a_token_of_the_issuer_is_served(oidc: Site) -> None:
    assert dims(oidc, oidc.issuer.token("ada")) == 64
    assert dims(oidc, oidc.issuer.token("a-machine", has_email=False)) == 64


def test_as_large_a_request_passes_as_the_router_takes_and_no_larger(oidc: Site) -> None:
    token = oidc.issuer.token("ada")
    with SIEClient(oidc.url, api_key=token) as client:
        assert len(client.encode(MODEL, [{"text": TEXT}] * 16)) == 16
    headers = bearer(token) | {"Content-Type": "application/msgpack"}
    assert httpx.post(f"{oidc.url}{ENCODE}", content=bytes(36_000_000), headers=headers).status_code == 413


def stale(issuer: Issuer) -> str:
    return issuer.token("ada", lives_s=-60)


def of_another_audience(issuer: Issuer) -> str:
    return issuer.token("ada", audience="somebody-else")


def forged(issuer: Issuer) -> str:
    return issuer.token("ada", key=rsa.generate_private_key(65537, 2048))


def nonsense(_: Issuer) -> str:
    return "no.token.atall"


@pytest.mark.parametrize("made", [stale, of_another_audience, forged, nonsense])
def test_a_token_that_does_not_count_is_refused_and_not_sent_to_sign_in(
    oidc: Site, made: Callable[[Issuer], str]
) -> None:
    token = made(oidc.issuer)
    assert httpx.get(f"{oidc.url}/v1/models", headers=bearer(token)).status_code == 403
    with pytest.raises(RequestError, match="403 Forbidden") as refused:
        dims(oidc, token)
    assert "<" not in str(refused.value)


def test_a_program_without_a_token_is_told_that_it_met_a_sign_in(oidc: Site) -> None:
    with SIEClient(oidc.url) as client, pytest.raises(RequestError, match=r"redirected to .*/oauth2/start.*api_key"):
        client.encode(MODEL, {"text": "a test"})


def test_users_have_pools_of_their_own_and_no_header_makes_one_another(users: Site) -> None:
    ada, bob = users.issuer.token("ada"), users.issuer.token("bob")
    with SIEClient(users.url, api_key=ada) as hers, SIEClient(users.url, api_key=bob) as his:
        hers.create_pool("of-ada", {"l4": 1})
        with pytest.raises(PoolForbiddenError):
            his.delete_pool("of-ada")
        posing = {"X-Forwarded-User": "ada", "X-Auth-Request-User": "ada", "X-Forwarded-Email": "ada@example.com"}
        answer = httpx.delete(f"{users.url}/v1/pools/of-ada", headers=bearer(bob) | posing)
        assert answer.status_code == 403
        hers.delete_pool("of-ada")


@pytest.mark.parametrize("password", ["", "guessed"])
def test_past_the_proxy_nobody_is_believed_without_its_password(users: Site, password: str) -> None:
    basic = base64.b64encode(f"ada:{password}".encode()).decode()
    for headers in ({}, {"X-Forwarded-User": "ada"}, {"Authorization": f"Basic {basic}"}):
        assert httpx.post(f"{users.router}{ENCODE}", json=BODY, headers=headers).status_code == 401


def test_the_proxy_tells_its_password_to_no_user(users: Site) -> None:
    told = base64.b64encode(f"ada:{SECRET['PROXY']}".encode()).decode()
    with httpx.Client(follow_redirects=True, headers=bearer(users.issuer.token("ada"))) as client:
        for path in ("/oauth2/auth", "/oauth2/userinfo", "/v1/models", "/health"):
            answer = client.get(f"{users.url}{path}")
            assert told not in str(answer.headers)
            assert told not in answer.text
        assert client.get(f"{users.url}/oauth2/auth").status_code == 404


def test_word_that_a_machine_is_coming_passes_unchanged(oidc: Site) -> None:
    headers = bearer(oidc.issuer.token("ada")) | {"X-SIE-MACHINE-PROFILE": "a100-40gb"}
    answer = httpx.post(f"{oidc.url}{ENCODE}", json=BODY, headers=headers)
    assert answer.status_code == 202
    assert int(answer.headers["Retry-After"]) > 0


def test_tokens_of_the_router_pass_the_ingress(tokens: Site) -> None:
    assert dims(tokens, "token-b") == 64
    with pytest.raises(RequestError, match="UNAUTHENTICATED"):
        dims(tokens, "token-c")


@pytest.mark.parametrize("path", ["/metrics", "/ws/cluster-status", "/docs", "/openapi.json"])
def test_the_ingress_shows_no_more_than_its_paths(oidc: Site, tokens: Site, path: str) -> None:
    headers = bearer(oidc.issuer.token("ada"))
    assert httpx.get(f"{oidc.url}{path}", headers=headers).status_code == 404
    assert httpx.get(f"{tokens.url}{path}", headers=bearer("token-a")).status_code == 404
