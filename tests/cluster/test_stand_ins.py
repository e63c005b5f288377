"""What stands in for a cluster's DNS and for a Prometheus operator answers as those do; `tests/node` relies on it."""

from pathlib import Path
from typing import Any

import dns.message
import dns.rcode
import dns.rdatatype
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from lab.inside import make_group
from lab.monitors import targets
from lab.nameserver import addresses, answer

SERVICES: list[dict[str, Any]] = [
    {"metadata": {"name": "web", "namespace": "a", "labels": {"app": "x"}}, "spec": {"clusterIP": "10.96.0.7"}},
    {"metadata": {"name": "db", "namespace": "a", "labels": {"app": "y"}}, "spec": {"clusterIP": "None"}},
]
PODS = [{"metadata": {"uid": "1", "labels": {"sie.superlinked.com/pool": "l4"}}}]
SLICES: list[dict[str, Any]] = [
    {
        "metadata": {"name": "db-1", "namespace": "a", "labels": {"kubernetes.io/service-name": "db"}},
        "ports": [{"name": "http", "port": 8080}, {"name": "other", "port": 1}],
        "endpoints": [
            {
                "addresses": ["10.0.0.1"],
                "hostname": "db-0",
                "conditions": {"ready": True},
                "targetRef": {"uid": "1", "name": "db-0"},
            },
            {"addresses": ["10.0.0.2"], "hostname": "db-1", "conditions": {"ready": False}},
        ],
    }
]
MONITOR = {
    "metadata": {"uid": "m", "name": "m", "namespace": "a"},
    "spec": {"selector": {"matchLabels": {"app": "y"}}, "endpoints": [{"port": "http"}]},
}


def resolve(name: str) -> frozenset[str] | None:
    return addresses(name, SERVICES, SLICES)


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("web.a.svc.cluster.local", {"10.96.0.7"}),
        ("db.a.svc.cluster.local", {"10.0.0.1"}),
        ("db-0.db.a.svc.cluster.local", {"10.0.0.1"}),
        ("db-1.db.a.svc.cluster.local", None),
        ("web.b.svc.cluster.local", None),
        ("svc.cluster.local", None),
        ("example.com", None),
    ],
)
def test_a_service_is_its_address_and_a_headless_one_its_ready_endpoints(name: str, found: set[str] | None) -> None:
    assert resolve(name) == found


@pytest.mark.parametrize(
    ("name", "kind", "code", "count"),
    [
        ("Web.A.svc.cluster.local.", "A", dns.rcode.NOERROR, 1),
        ("web.a.svc.cluster.local.", "AAAA", dns.rcode.NOERROR, 0),  # or resolvers would give up on the name
        ("web.b.svc.cluster.local.", "A", dns.rcode.NXDOMAIN, 0),
    ],
)
def test_an_answer_says_what_there_is(name: str, kind: str, code: dns.rcode.Rcode, count: int) -> None:
    reply = answer(dns.message.make_query(name, kind).to_wire(), resolve)
    assert reply is not None
    said = dns.message.from_wire(reply)
    assert (said.rcode(), sum(map(len, said.answer))) == (code, count)


@example(bytes(12))  # a message without a question
@given(st.binary(max_size=64))
def test_no_datagram_ends_the_name_server(datagram: bytes) -> None:
    answer(datagram, resolve)


def test_a_monitor_finds_the_endpoints_of_its_services_with_the_labels_of_the_operator() -> None:
    (first, _) = targets([MONITOR], SERVICES, SLICES, PODS)["a/m/0"]
    assert first["targets"] == ["10.0.0.1:8080"]
    assert first["labels"] == {
        "namespace": "a",
        "service": "db",
        "endpoint": "http",
        "job": "db",
        "pod": "db-0",
        "__meta_kubernetes_pod_label_sie_superlinked_com_pool": "l4",
    }


def test_a_machine_has_a_group_of_its_own_in_both_versions_of_control_groups(tmp_path: Path) -> None:
    first, second = tmp_path / "1", tmp_path / "2"
    for hierarchy in ("memory", "cpuset"):
        (first / hierarchy).mkdir(parents=True)
        (first / hierarchy / "cgroup.procs").touch()
    (first / "cpuset/cpuset.cpus").write_text("0-1\n")
    second.mkdir()
    (second / "cgroup.controllers").write_text("cpu memory pids rdma\n")
    for root in (first, second):
        make_group(root, "lab")
    assert (first / "memory/lab").is_dir()
    assert (first / "cpuset/lab/cpuset.cpus").read_text() == "0-1\n"
    assert (second / "lab").is_dir()
    assert (second / "cgroup.subtree_control").read_text() == "+cpu +memory +pids"
