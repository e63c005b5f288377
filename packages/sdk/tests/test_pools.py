"""What pool calls send and give, and how a client's own pool comes to be; keeping one is in test_leases."""

import json
import threading
from typing import Any

import pytest

import sdk_answers as published
from sdk_clients import Open
from sdk_server import Reply, Reset, Serve, Step
from sie_sdk import SIEClient, errors
from sie_sdk.types import Item

HELLO = Item(text="Hello")
GONE = published.said(404, {"error": {"code": "POOL_NOT_FOUND", "message": "pool 'tenant' does not exist"}})
GONE_0_1 = published.said(404, {"detail": {"message": "Pool 'tenant' not found"}})
DELETED = published.said(200, {"message": "Pool 'tenant' deleted"})
RENEWED = published.said(200, {"message": "Lease renewed"})


def info(lease_s: float | None = None, **fields: Any) -> Reply:
    status = {"state": "active", "assigned_workers": [], "created_at": 1.0, "last_renewed": 1.0}
    lease = {} if lease_s is None else {"lease_duration_s": lease_s}
    spec = {"gpus": {"l4": 2}, "minimum_worker_count": 0}
    return published.said(200, {"name": "tenant", "spec": spec, "status": {**status, **lease}, **fields})


def test_making_a_pool_sends_what_it_is_told(serve: Serve, open_client: Open) -> None:
    server = serve(info())
    client = open_client(server.url)
    made = client.create_pool("tenant", {"l4": 2}, bundle="default", minimum_worker_count=1)
    assert (made["name"], made["status"]["state"]) == ("tenant", "active")
    client.create_pool("tenant", {"l4": 3})
    first, second = server.seen
    assert (first.method, first.path, first.headers["content-type"]) == ("POST", "/v1/pools", "application/json")
    wanted = {"name": "tenant", "gpus": {"l4": 2}, "bundle": "default", "minimum_worker_count": 1}
    assert json.loads(first.body) == wanted
    assert json.loads(second.body) == {"name": "tenant", "gpus": {"l4": 3}}  # a change reaches the server


@pytest.mark.parametrize("gone", [GONE, GONE_0_1], ids=["ours", "0.1"])
def test_a_pool_that_does_not_exist_is_none_and_its_deletion_false(
    serve: Serve, open_client: Open, gone: Reply
) -> None:
    client = open_client(serve(gone).url)
    assert client.get_pool("tenant") is None
    assert client.delete_pool("tenant") is False


def test_a_server_without_pools_is_not_taken_for_one_without_this_pool(serve: Serve, open_client: Open) -> None:
    no_route = published.said(404, {"error": {"code": "NOT_FOUND", "message": "no such path"}})
    with pytest.raises(errors.PoolError) as raised:
        open_client(serve(no_route).url).get_pool("tenant")
    assert not isinstance(raised.value, errors.PoolNotFoundError)


def test_pools_are_read_from_every_generation_of_routers(serve: Serve, open_client: Open) -> None:
    nameless = published.said(200, {"spec": {"name": "tenant", "gpus": {}}, "status": {"state": "pending"}})
    listed = published.said(
        200, {"pools": [{"name": "tenant", "state": "active", "gpus": {"l4": 2}, "worker_count": 1}]}
    )
    client = open_client(serve(info(), nameless, listed, DELETED).url)
    for state in ("active", "pending"):
        found = client.get_pool("tenant")
        assert found is not None
        assert (found["name"], found["status"]["state"]) == ("tenant", state)
    assert [each["worker_count"] for each in client.list_pools()] == [1]
    assert client.delete_pool("tenant") is True


@pytest.mark.parametrize(
    ("reply", "kind"),
    [
        (published.said(400, {"error": {"code": "INVALID_INPUT", "message": "no such profile"}}), errors.PoolError),
        (published.said(400, {"detail": "text"}), errors.PoolError),
        (published.said(403, {"error": {"code": "FORBIDDEN", "message": "not yours"}}), errors.PoolForbiddenError),
        (published.said(500, {"detail": ["odd"]}), errors.ServerError),
    ],
)
def test_a_refused_pool_is_an_error_of_its_kind(
    serve: Serve, open_client: Open, reply: Reply, kind: type[errors.SIEError]
) -> None:
    with pytest.raises(kind) as raised:
        open_client(serve(reply).url).create_pool("tenant", {"h9": 1})
    if isinstance(raised.value, errors.PoolError):
        assert raised.value.pool_name == "tenant"


def test_pool_calls_outlive_a_restart_of_the_router(serve: Serve, open_client: Open) -> None:
    client = open_client(serve(Reset(), info(), Reset(), DELETED).url)
    assert client.create_pool("tenant", {"l4": 2})["name"] == "tenant"
    assert client.delete_pool("tenant") is True


@pytest.mark.parametrize(("name", "gpus"), [("", {"l4": 1}), ("a/b", {"l4": 1}), ("a", {})])
def test_a_pool_that_cannot_be_is_refused_before_anything_is_sent(name: str, gpus: dict[str, int]) -> None:
    with SIEClient("http://localhost:1") as client, pytest.raises(ValueError, match="pool"):
        client.create_pool(name, gpus)


def test_the_clients_own_pool_is_made_with_the_first_call_into_it(serve: Serve, open_client: Open) -> None:
    server = serve(info(), published.VECTOR)
    client = open_client(server.url, pool={"name": "tenant", "gpus": {"l4": 2}})
    for _ in range(2):
        client.encode("org/m", HELLO)
    client.encode("org/m", HELLO, gpu="tenant/l4")
    assert [seen.path for seen in server.seen] == ["/v1/pools", *["/v1/encode/org/m"] * 3]
    assert [seen.headers.get("x-sie-pool") for seen in server.seen[1:]] == ["tenant"] * 3
    assert [seen.headers.get("x-sie-machine-profile") for seen in server.seen[1:]] == [None, None, "l4"]


def test_a_call_elsewhere_does_not_make_the_clients_own_pool(serve: Serve, open_client: Open) -> None:
    server = serve(published.VECTOR)
    client = open_client(server.url, pool={"name": "tenant", "gpus": {"l4": 2}})
    client.encode("org/m", HELLO, gpu="l4")
    client.encode("org/m", HELLO, gpu="other/l4")
    assert [seen.path for seen in server.seen] == ["/v1/encode/org/m"] * 2


def test_a_call_into_a_kept_pool_that_is_gone_makes_it_anew(serve: Serve, open_client: Open) -> None:
    server = serve(info(), GONE, info(), published.VECTOR, GONE)
    client = open_client(server.url)
    client.create_pool("tenant", {"l4": 2})
    assert client.encode("org/m", HELLO, gpu="tenant/l4")["dense"].shape == (2,)
    assert server.seen[0].body == server.seen[2].body
    with pytest.raises(errors.PoolNotFoundError, match="create_pool"):
        client.encode("org/m", HELLO, gpu="stranger/l4")  # nobody asked this client to keep that one


def test_a_lease_is_renewed_in_the_background_and_a_lost_pool_made_anew(serve: Serve, open_client: Open) -> None:
    steps: tuple[Step, ...] = (info(lease_s=0.4), RENEWED, GONE, info(lease_s=0.4), Reset(), RENEWED)
    server = serve(*steps)
    client = open_client(server.url)
    client.create_pool("tenant", {"l4": 2})
    client.idle(lambda: len(server.seen) >= 7)
    assert [seen.path.removeprefix("/v1/pools") for seen in server.seen[:4]] == [
        "",
        "/tenant/renew",
        "/tenant/renew",
        "",
    ]
    client.idle(lambda: not client.lease_failures)


def test_a_lease_that_cannot_be_renewed_is_shown(serve: Serve, open_client: Open) -> None:
    denied = published.said(403, {"error": {"code": "FORBIDDEN", "message": "not yours"}})
    client = open_client(serve(info(lease_s=0.4), denied).url)
    client.create_pool("tenant", {"l4": 2})
    client.idle(lambda: client.lease_failures)
    assert isinstance(client.lease_failures["tenant"], errors.PoolForbiddenError)
    client.close()


def test_closing_leaves_no_thread_and_deletes_no_pool(serve: Serve) -> None:
    server = serve(info())
    with SIEClient(server.url) as client:
        client.create_pool("tenant", {"l4": 2})
        assert "sie-sdk-leases" in {thread.name for thread in threading.enumerate()}
    assert "sie-sdk-leases" not in {thread.name for thread in threading.enumerate()}
    assert [seen.method for seen in server.seen] == ["POST"]
