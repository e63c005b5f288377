from base64 import b64encode
from collections.abc import Awaitable, Callable

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from router_builders import MODEL, status
from router_fakes import FakeWorker, eventually, served, settings
from sie_protocol.errors import Problem
from sie_router.core.pools import ANYONE, Caller
from sie_router.core.rate import Rate
from sie_router.edge.auth import EXEMPT, OPERATIONAL, Tokens, token_id, user_id
from sie_router.settings import AuthSettings, Exempt

MakeWorker = Callable[..., Awaitable[FakeWorker]]
AUTH = AuthSettings(("alice", "bob"), "root")
OPERATIONAL_PAGES = sorted(OPERATIONAL - {"/ws/cluster-status"})


@given(st.text(min_size=1), st.binary(max_size=40))
def test_only_a_known_token_is_anybody(token: str, header: bytes) -> None:
    found = Tokens([token], None).caller(header)
    sent = header.strip()
    if sent[:7].lower() == b"bearer ":
        sent = sent[7:].strip()
    if sent == token.encode("utf-8", "surrogatepass"):
        assert found == Caller(token_id(token))
    else:
        assert isinstance(found, Problem)


@pytest.mark.parametrize("form", ["Bearer {}", "bearer {}", "BEARER   {}", "{}", "  {}  "])
@pytest.mark.parametrize("token", ["alice", "pässwörd", "日本"])
def test_a_token_is_taken_with_or_without_its_scheme(form: str, token: str) -> None:
    assert Tokens(["x", token], "root").caller(form.format(token).encode()) == Caller(token_id(token))


def test_the_admin_is_one_and_an_id_tells_nothing() -> None:
    assert Tokens(["a"], "root").caller(b"Bearer root") == Caller("admin", is_admin=True)
    assert Tokens([], None).caller(None) == ANYONE
    assert len({token_id("alice"), token_id("alicf"), token_id("")}) == 3
    assert "alice" not in token_id("alice")


PROOF = "only-the-proxy-knows"


def basic(user: bytes, secret: str = PROOF) -> bytes:
    return b"Basic " + b64encode(user + b":" + secret.encode())


@given(st.binary(min_size=1, max_size=40), st.binary(min_size=1, max_size=40), st.text(max_size=30))
def test_a_user_is_whom_the_proxy_names_with_its_secret_and_nobody_else(user: bytes, other: bytes, guess: str) -> None:
    tokens = Tokens(["alice"], "root", PROOF)
    found = tokens.caller(basic(user))
    assert found == tokens.caller(basic(user).lower()[:5] + basic(user)[5:]) == Caller(user_id(user))
    assert (tokens.caller(basic(other)) == found) is (other == user)
    if guess.rpartition(":")[2] != PROOF:
        assert isinstance(tokens.caller(basic(user, guess)), Problem)
        assert isinstance(Tokens([], None, PROOF).caller(b"Basic " + guess.encode()), Problem)
    assert isinstance(Tokens(["alice"], "root").caller(basic(user)), Problem), "nobody is a proxy who was not told of"


def test_beside_a_proxy_tokens_are_what_they_were_and_an_unnamed_user_is_nobody() -> None:
    tokens = Tokens(["alice"], "root", PROOF)
    assert tokens.caller(b"Bearer alice") == Caller(token_id("alice"))
    assert tokens.caller(b"Bearer root") == Caller("admin", is_admin=True)
    assert user_id(b"alice") != token_id("alice")
    for refused in (None, b"", b"Basic", b"Basic ???", basic(b""), b"Bearer " + PROOF.encode(), PROOF.encode()):
        assert isinstance(tokens.caller(refused), Problem)


async def test_users_of_a_proxy_have_pools_and_a_rate_of_their_own(make_worker: MakeWorker) -> None:
    worker = await make_worker(status("w", loaded=[MODEL]))
    auth, rate = AuthSettings(proxy_secret=PROOF), Rate(per_s=0.001, burst=2)
    async with (
        served(settings(worker, auth=auth, rate=rate)) as router,
        httpx.AsyncClient(base_url=router.url) as client,
    ):
        await eventually(lambda: router.healthy() == 1)
        alice, bob = ({"Authorization": basic(user).decode()} for user in (b"alice", b"bob"))
        made = await client.post("/v1/pools", json={"name": "a", "gpus": {"l4": 1}}, headers=alice)
        assert made.status_code == 201
        assert (await client.get("/v1/pools/a", headers=alice)).status_code == 200
        assert (await client.get("/v1/pools/a", headers=bob)).status_code == 403
        forged = {"X-Auth-Request-User": "alice", "X-Forwarded-User": "alice"}
        assert (await client.get("/v1/pools/a", headers=forged)).status_code == 401
        assert (await client.get("/v1/pools/a", headers=bob | forged)).status_code == 403
        path = f"/v1/encode/{MODEL}"
        asked = [await client.post(path, content=b"{}", headers=headers) for headers in (alice, alice, alice, bob)]
        assert [answer.status_code == 429 for answer in asked] == [False, False, True, False]
        assert not [text for head in worker.seen for _, text in head.headers if "Basic" in text]


@pytest.mark.parametrize("exempt", Exempt)
async def test_without_a_token_only_probes_and_what_is_exempt_are_open(exempt: Exempt) -> None:
    auth = AuthSettings(AUTH.tokens, exempt=exempt)
    async with served(settings(auth=auth)) as router, httpx.AsyncClient(base_url=router.url) as client:
        for path in ("/healthz", "/readyz"):
            assert (await client.get(path)).status_code == 200
        for path in OPERATIONAL_PAGES:
            assert (await client.get(path)).status_code == (200 if path in EXEMPT[exempt] else 401)
        for method, path in (
            ("GET", "/v1/models"),
            ("GET", "/v1/pools"),
            ("POST", "/v1/pools"),
            ("GET", "/nowhere"),
            ("POST", f"/v1/encode/{MODEL}"),
            ("GET", f"/v1/encode/{MODEL}"),
        ):
            answer = await client.request(method, path)
            assert answer.status_code == 401
            assert answer.headers["www-authenticate"] == "Bearer"
            assert answer.json()["error"]["code"] == "UNAUTHENTICATED"
            assert answer.headers["x-sie-server-version"] == "0.1.10"
        assert [outcome.status for outcome in router.outcomes] == [401, 401]


async def test_the_cluster_stream_needs_a_token_too() -> None:
    async with served(settings(auth=AUTH)) as router:
        address = f"ws://127.0.0.1:{router.port}/ws/cluster-status"
        with pytest.raises(InvalidStatus) as refused:
            async with connect(address, proxy=None):
                pass
        assert refused.value.response.status_code == 401
        async with connect(address, proxy=None, additional_headers={"Authorization": "Bearer bob"}) as stream:
            assert await stream.recv()


async def test_no_credential_reaches_a_worker_or_the_audit(make_worker: MakeWorker) -> None:
    worker = await make_worker(status("w", loaded=[MODEL]))
    async with (
        served(settings(worker, auth=AUTH)) as router,
        httpx.AsyncClient(base_url=router.url) as client,
    ):
        await eventually(lambda: router.healthy() == 1)
        secrets = {
            "Authorization": "Bearer alice",
            "Cookie": "_oauth2_proxy=alice",
            "X-Forwarded-Access-Token": "alice",
            "X-Auth-Request-Access-Token": "alice",
            "X-Forwarded-Email": "alice@example.com",
        }
        answer = await client.post(f"/v1/encode/{MODEL}", content=b"{}", headers=secrets)
        assert answer.status_code == 200
        assert not [text for _, text in worker.seen[0].headers if "alice" in text]
        assert router.outcomes[0].caller == token_id("alice")
        assert "alice" not in repr(router.outcomes)


async def test_an_open_router_believes_nobody_s_token() -> None:
    async with served(settings()) as router, httpx.AsyncClient(base_url=router.url) as client:
        headers = {"Authorization": "Bearer whatever"}
        assert (await client.get("/v1/pools", headers=headers)).status_code == 200
        await client.post(f"/v1/encode/{MODEL}", content=b"{}", headers=headers)
        assert router.outcomes[0].caller == ""
