"""Resource pools: workers reserved for one tenant. Every call about them as a value; `leases` keeps what was made.

A pool reserves a number of workers per machine profile and is used by `gpu="pool/profile"`. It lasts while its client
is open: the client renews its lease in the background and makes it anew should it ever be lost. After the client is
gone it ends by itself within one lease.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Final
from urllib.parse import quote

import msgspec

from sie_protocol.headers import JSON, POOLS
from sie_protocol.pools import PoolInfo, PoolListItem
from sie_protocol.target import parse_target
from sie_sdk import answers, calls, flow, leases
from sie_sdk.errors import PoolNotFoundError
from sie_sdk.leases import Lease, LeaseBook
from sie_sdk.messages import Answer, Flow, Plan, Request, T
from sie_sdk.retry import Terms
from sie_sdk.settings import PoolSpec, Settings

_SEND_JSON: Final = (("Content-Type", JSON), *calls.ASK_JSON)


@dataclass(frozen=True, slots=True)
class Pools:
    """The calls about pools of one client."""

    settings: Settings
    book: LeaseBook

    def create(self, spec: PoolSpec) -> Plan[PoolInfo]:
        """Make the pool, or change one's own, and keep it from now on."""
        return partial(self._make, spec)

    def get(self, name: str | None) -> Plan[PoolInfo | None]:
        """One pool, or None when there is none of this name."""
        asked = self._named(name)
        return _none_if_gone(
            flow.single(Request("GET", _path(asked), calls.ASK_JSON), self._terms(asked), partial(_info, asked))
        )

    def delete(self, name: str | None) -> Plan[bool]:
        """End the reservation; False when there was none. It is not kept any longer, whatever the server says."""
        asked = self._named(name)
        self.book.drop(_key(asked))
        request = Request("DELETE", _path(asked), calls.ASK_JSON)
        return _is_there(flow.single(request, self._terms(asked), lambda _: True))

    def renew(self, name: str | None) -> Plan[bool]:
        """Begin the lease anew, once; False when there is no such pool."""
        asked = self._named(name)
        return _is_there(flow.single(_renewal(asked), self._terms(asked), lambda _: True))

    def list(self) -> Plan[list[PoolListItem]]:
        """The pools that this client's key may use, and the default one."""
        request = Request("GET", POOLS, calls.ASK_JSON)
        return flow.single(request, self._terms(POOLS), partial(answers.read, kind=_Pools, pick=lambda it: it.pools))

    def within(self, terms: Terms, plan: Plan[T]) -> Plan[T]:
        """The plan, in its pool: made before, if it is the client's own, and made anew, if it is kept but gone."""
        pool = parse_target(terms.gpu).pool
        return plan if pool is None else partial(self._run_within, _key(pool), plan)

    def _run_within(self, key: str, plan: Plan[T], start: float) -> Flow[T]:
        own = self.settings.pool
        if own is not None and _key(own.name) == key and self.book.get(key) is None:
            yield from self._make(own, start)
        try:
            return (yield from plan(start))
        except PoolNotFoundError:
            lease = self.book.get(key)
            if lease is None:
                raise
        _, now = yield from flow.exchange(lease.create, self._terms(key), start)
        return (yield from plan(now))

    def _make(self, spec: PoolSpec, start: float) -> Flow[PoolInfo]:
        request = Request("POST", POOLS, _SEND_JSON, msgspec.json.encode(spec))
        answer, now = yield from flow.exchange(request, self._terms(spec.name), start)
        info = _info(spec.name, answer)
        every_s = leases.interval_s(info["status"].get("lease_duration_s"))
        delete = Request("DELETE", _path(spec.name), calls.ASK_JSON)
        self.book.hold(Lease(_key(spec.name), request, _renewal(spec.name), delete, now, every_s))
        return info

    def _terms(self, name: str) -> Terms:
        # These calls may be repeated without harm, so they outlive a router's restart; nobody waits for a machine here.
        return replace(self.settings.question_terms(), wait_for_capacity=True, pool=name)

    def _named(self, name: str | None) -> str:
        if name is None and self.settings.pool is None:
            raise ValueError("no pool is named: pass its name, or create the client with pool=")
        return name if name is not None else self.settings.pool.name  # type: ignore[union-attr]  # just checked


class _Pool(msgspec.Struct, frozen=True):
    """One pool of an answer; some published routers tell its name only inside `spec`, or not at all."""

    status: dict[str, Any]
    spec: dict[str, Any] = {}
    name: str | None = None


class _Pools(msgspec.Struct, frozen=True):
    pools: list[PoolListItem]


def _info(asked: str, answer: Answer) -> PoolInfo:
    found: _Pool = answers.read(answer, kind=_Pool, pick=lambda it: it)
    raw: Mapping[str, Any] = {"name": found.name or asked, "spec": found.spec, "status": found.status}
    defaults = {"assigned_workers": [], "created_at": 0.0, "last_renewed": 0.0}
    spec = {"gpus": {}, "minimum_worker_count": 0, **found.spec}
    try:
        return msgspec.convert({**raw, "spec": spec, "status": {**defaults, **found.status}}, PoolInfo)
    except msgspec.ValidationError as error:
        raise answers.malformed(answer, str(error)) from error


def _none_if_gone(plan: Plan[T]) -> Plan[T | None]:
    def begin(start: float) -> Flow[T | None]:
        try:
            return (yield from plan(start))
        except PoolNotFoundError:
            return None

    return begin


def _is_there(plan: Plan[bool]) -> Plan[bool]:
    def begin(start: float) -> Flow[bool]:
        return (yield from _none_if_gone(plan)(start)) is True

    return begin


def _renewal(name: str) -> Request:
    return Request("POST", f"{_path(name)}/renew", calls.ASK_JSON)


def _path(name: str) -> str:
    return f"{POOLS}/{quote(name, safe='')}"


def _key(name: str) -> str:
    """Routers store names in this spelling."""
    return name.strip().lower()
