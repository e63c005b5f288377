"""Requests that fit a program's own OpenAPI document, and what every answer of ours must be like."""

from collections.abc import Collection, Mapping
from typing import Any

import msgspec
import schemathesis
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from schemathesis.core.result import Ok

from sie_protocol.errors import RULES, ErrorCode

ANSWER_S = 10.0  # a small machine under load; a hang is much longer
FUZZ = settings(
    max_examples=40,
    deadline=None,
    suppress_health_check=[
        HealthCheck.function_scoped_fixture,
        HealthCheck.too_slow,
        HealthCheck.filter_too_much,
        HealthCheck.large_base_example,
        HealthCheck.data_too_large,
    ],
)

Requests = st.SearchStrategy[schemathesis.Case[Any]]


def requests_of(url: str, paths: Collection[str]) -> Requests:
    """Requests to every operation of the document, which must have these paths."""
    document = schemathesis.openapi.from_url(f"{url}/openapi.json")
    operations = [found.ok() for found in document.get_all_operations() if isinstance(found, Ok)]
    assert set(paths) <= {each.path for each in operations}
    return st.one_of([operation.as_strategy() for operation in operations])


def check(status: int, headers: Mapping[str, str], body: bytes) -> None:
    """An answer in the program's own words: a result, or a refusal with the status of its code."""
    assert status != 500, body
    if status >= 400:
        code = ErrorCode(headers["x-sie-error-code"])
        assert status == RULES[code].status
        assert msgspec.json.decode(body)["error"]["code"] == code


def check_sent(case: schemathesis.Case[Any]) -> None:
    """Send a request and check the answer."""
    reply = case.call(timeout=ANSWER_S)
    check(reply.status_code, {name: found[0] for name, found in reply.headers.items()}, reply.content)
