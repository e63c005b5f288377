"""Programs written for the published SDKs find their names and arguments."""

import inspect

import pytest

from sie_sdk import client

WAITING = ("gpu", "wait_for_capacity", "provision_timeout_s", "max_oom_retries")
SIGNATURES = {
    "__init__": (
        *("base_url", "timeout_s", "api_key", "gpu", "options", "pool", "max_connections", "base_url_headers"),
        *("connect_timeout_s", "read_timeout_s", "http_client"),
    ),
    "encode": ("model", "items", "output_types", "instruction", "output_dtype", "is_query", "options", *WAITING),
    "score": ("model", "query", "items", "instruction", "options", *WAITING),
    "extract": ("model", "items", "labels", "output_schema", "instruction", "options", *WAITING),
    "list_models": (),
    "get_model": ("model",),
    "get_capacity": ("gpu",),
    "wait_for_capacity": ("gpu", "model", "timeout_s", "poll_interval_s"),
    "watch": ("mode",),
    "create_pool": ("name", "gpus", "bundle", "minimum_worker_count"),
    "get_pool": ("name",),
    "delete_pool": ("name",),
    "close": (),
}


@pytest.mark.parametrize("kind", [client.SIEClient, client.SIEAsyncClient])
@pytest.mark.parametrize("method", SIGNATURES)
def test_programs_for_the_published_clients_find_their_arguments(kind: type, method: str) -> None:
    found = tuple(inspect.signature(getattr(kind, method)).parameters)
    assert set(SIGNATURES[method]) <= set(found)
    positional = SIGNATURES[method][: 3 if method == "score" else 2 if "items" in found else 1]
    assert found[1 : 1 + len(positional)] == positional
