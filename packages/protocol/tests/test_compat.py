import pytest

from sie_protocol.compat import compat_body
from sie_protocol.errors import RULES, ErrorCode, Problem


@pytest.mark.parametrize("code", ErrorCode)
def test_every_code_has_the_shape_that_other_services_clients_read(code: ErrorCode) -> None:
    error = compat_body(Problem(code, "why", details={"param": "model", "other": 1}))["error"]
    assert (error["message"], error["param"], error["code"]) == ("why", "model", str(code))
    assert (error["type"] == "server_error") == (RULES[code].status >= 500)
    assert error.keys() == {"message", "type", "param", "code"}


def test_a_refusal_about_no_field_says_so() -> None:
    assert compat_body(Problem(ErrorCode.INVALID_INPUT, "why"))["error"]["param"] is None
