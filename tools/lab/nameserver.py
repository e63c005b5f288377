"""The names of Services, for pods and for what runs beside them: enough of a cluster's DNS for ours.

`SERVICE.NAMESPACE.svc.cluster.local` is the Service's address, or for a headless one those of its ready endpoints, and
`POD.SERVICE...` the address of one of them. Other names do not exist: the lab has no way out.
"""

import ipaddress
import socket
import threading
from collections.abc import Callable, Iterable
from typing import Final

import dns.flags
import dns.message
import dns.rcode
import dns.rdatatype
import dns.rrset
from dns.exception import DNSException

from lab.api import Api, Object
from lab.mirror import Mirror, endpoints_of

DOMAIN: Final = "cluster.local"
PORT: Final = 53
TTL_S: Final = 1
LARGEST: Final = 4096
LOOK_AT_STOP_S: Final = 0.2
Resolve = Callable[[str], frozenset[str] | None]


def addresses(name: str, services: Iterable[Object], slices: Iterable[Object]) -> frozenset[str] | None:
    """The IPv4 addresses of a name, without its last dot; None when there is no such name."""
    if not name.endswith(f".svc.{DOMAIN}"):
        return None
    *host, service, namespace = ["", *name.removesuffix(f".svc.{DOMAIN}").split(".")][-3:]
    wanted = {"name": service, "namespace": namespace}
    found = [each for each in services if wanted.items() <= each["metadata"].items()]
    if not found:
        return None
    spec = found[0]["spec"]
    if not any(host) and spec.get("clusterIP") != "None":
        return frozenset({spec["clusterIP"]})
    unready = spec.get("publishNotReadyAddresses", False)
    ready = {
        address
        for _, each in endpoints_of(slices, namespace, service)
        if unready or each.get("conditions", {}).get("ready", True)
        if not any(host) or each.get("hostname") == host[0]
        for address in each["addresses"]
    }
    return frozenset(ready) if ready or not any(host) else None


def answer(query: bytes, resolve: Resolve) -> bytes | None:
    """What to send back; nothing to what is no question."""
    try:
        asked = dns.message.from_wire(query)
        reply = dns.message.make_response(asked, recursion_available=True)
    except DNSException:
        return None
    if not asked.question:
        return None
    reply.flags |= dns.flags.AA
    question = asked.question[0]
    found = resolve(question.name.to_text(omit_final_dot=True).lower())
    if found is None:
        reply.set_rcode(dns.rcode.NXDOMAIN)
    elif found and question.rdtype == dns.rdatatype.A:
        ordered = sorted(found, key=ipaddress.ip_address)
        reply.answer.append(dns.rrset.from_text_list(question.name, TTL_S, "IN", "A", ordered))
    return reply.to_wire()


class NameServer:
    """Answers on UDP at this address until closed."""

    def __init__(self, api: Api, address: str) -> None:
        self._mirrors = [Mirror(api, path) for path in ("/api/v1/services", "/apis/discovery.k8s.io/v1/endpointslices")]
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind((address, PORT))
        self._socket.settimeout(LOOK_AT_STOP_S)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._serve, name="dns", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop answering."""
        self._stop.set()
        self._thread.join()
        self._socket.close()
        for mirror in self._mirrors:
            mirror.close()

    def _resolve(self, name: str) -> frozenset[str] | None:
        services, slices = (mirror.objects() for mirror in self._mirrors)
        return addresses(name, services, slices)

    def _serve(self) -> None:
        while not self._stop.is_set():
            try:
                query, asker = self._socket.recvfrom(LARGEST)
            except TimeoutError:
                continue
            if reply := answer(query, self._resolve):
                self._socket.sendto(reply, asker)
