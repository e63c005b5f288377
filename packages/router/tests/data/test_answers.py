import msgspec
import pytest

from router_builders import L4
from sie_router.core.route import Provision
from sie_router.data.answers import LONG_S, compat_provisioning, provisioning


@pytest.mark.parametrize("version", [None, "0.10.1"])
def test_a_client_that_waits_in_vain_hears_what_may_be_missing(version: str | None) -> None:
    decision = Provision(L4, is_configured=True, model_id="m")
    for waited_s, said in ((LONG_S - 1, "one is being provisioned"), (LONG_S, "for 10 minutes: machines, quota")):
        body = msgspec.json.decode(provisioning(decision, version, 120, 180, waited_s).body)
        assert body["waited_s"] == waited_s
        assert said in body["message"]
        other = msgspec.json.decode(compat_provisioning(decision, 120, waited_s).body)
        assert other["error"]["message"] == body["message"]


def test_who_finds_all_workers_reserved_hears_so_before_any_promise() -> None:
    decision = Provision(L4, is_configured=True, model_id="m", reserved=2)
    message = msgspec.json.decode(provisioning(decision, "0.10.1", 120, 180, 0).body)["error"]["message"]
    assert "all 2 that are there are reserved by resource pools; if there may be more, one is being" in message
