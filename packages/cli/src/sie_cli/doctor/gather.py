"""Asks what the checks need to know: one planted request, and all around it. Decides nothing but when to stop."""

import asyncio
import socket
import ssl
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Final
from urllib.parse import quote

import httpx

from sie_cli.api import Api, Reply
from sie_cli.doctor.facts import OK, Asked, Attempt, Facts, Gap, Heard, NoReply, PrometheusFacts, decision_of
from sie_cli.scrape import parse
from sie_protocol.errors import ErrorCode
from sie_protocol.headers import HEALTH, MACHINE_PROFILE, METRICS, MODELS, POOL, ROUTE_EXPLAIN, operation_path
from sie_sdk.wire import causes

TEXT: Final = "sie doctor asks for one answer"
EVERY_S: Final = 1.0
SCRAPED_WITHIN_S: Final = 60.0  # Prometheus usually scrapes every 15 to 30 s
QUERY_PATH: Final = "/api/v1/query"
COUNT_ROUTERS: Final = "count(sie_router_pools)"
_COMES: Final = frozenset(
    {ErrorCode.PROVISIONING, ErrorCode.MODEL_LOADING, ErrorCode.LORA_LOADING, ErrorCode.QUEUE_FULL}
)

Say = Callable[[str], None]


async def gather(api: Api, asked: Asked, clock: Callable[[], float], say: Say) -> Facts:
    """Follow the chain until an answer comes, something refuses, or `wait_s` is over."""
    facts = Facts(asked, await _heard(api, "GET", HEALTH))
    if not _is_ok(facts.health):
        return facts
    if not asked.model:
        return replace(facts, model=await _heard(api, "GET", MODELS))
    facts = replace(
        facts, model=await _heard(api, "GET", f"{MODELS}/{quote(asked.model.rpartition(':/')[2], safe='/')}")
    )
    if not _is_ok(facts.model):
        return facts
    facts = replace(facts, route=await _explain(api, asked))
    if decision_of(facts.route).get("action") == "reject":
        return facts
    started_at = clock()
    say(f"asking {asked.model} for one answer")
    attempts = [Attempt(0.0, await _ask(api, asked, facts.model))]
    facts = await _signals(api, replace(facts, attempts=tuple(attempts)), clock)
    while _comes(attempts[-1].heard) and clock() - started_at < asked.wait_s:
        say(f"{_said(attempts[-1].heard)}; {clock() - started_at:.0f} of {asked.wait_s:g} s")
        await asyncio.sleep(EVERY_S)
        attempts.append(Attempt(clock() - started_at, await _ask(api, asked, facts.model)))
    if _comes(attempts[-1].heard):
        facts = replace(facts, route=await _explain(api, asked))
    return replace(facts, attempts=(attempts[0], attempts[-1]))


async def _signals(api: Api, facts: Facts, clock: Callable[[], float]) -> Facts:
    """The demand as the router tells it, and as Prometheus does."""
    metrics = await _heard(api, "GET", METRICS)
    facts = replace(facts, metrics=metrics, demand=_demand(metrics))
    if facts.asked.prometheus is None:
        return facts
    return replace(facts, prometheus=await _prometheus(facts, facts.asked.prometheus, clock))


def keda_query(profile: str, bundle: str) -> str:
    """How many pools wait for a worker of a group; every replica tells the same, so they count once."""
    return f'sum(max by (pool) (sie_router_pending_demand{{machine_profile="{profile}",bundle="{bundle}"}}))'


async def _prometheus(facts: Facts, url: str, clock: Callable[[], float]) -> PrometheusFacts:
    decision = decision_of(facts.route)
    query = keda_query(decision.get("profile", ""), decision.get("bundle", ""))
    until = clock() + min(SCRAPED_WITHIN_S, facts.asked.wait_s)
    async with Api(url, None) as prometheus:
        while True:
            try:
                routers = await _value(prometheus, COUNT_ROUTERS)
                demand = await _value(prometheus, query)
            except (httpx.HTTPError, LookupError, TypeError, ValueError) as error:
                return PrometheusFacts(query=query, trouble=f"{url}: {error or type(error).__name__}")
            is_there = bool(routers) and (bool(demand) or "profile" not in decision)
            if is_there or clock() >= until:
                return PrometheusFacts(int(routers or 0), demand, query)
            await asyncio.sleep(EVERY_S)


async def _value(prometheus: Api, query: str) -> float | None:
    reply = await prometheus.reply("GET", f"{QUERY_PATH}?query={quote(query, safe='')}")
    if reply.status != OK:
        raise ValueError(f"HTTP {reply.status}: {reply.text[:200]}")
    result = reply.value["data"]["result"]
    return float(result[0]["value"][1]) if result else None


async def _explain(api: Api, asked: Asked) -> Heard:
    wanted = {"model": asked.model, "profile": asked.profile or "", "pool": asked.pool or ""}
    query = "&".join(f"{name}={quote(value, safe='')}" for name, value in wanted.items())
    return await _heard(api, "GET", f"{ROUTE_EXPLAIN}?{query}")


async def _ask(api: Api, asked: Asked, model: Heard | None) -> Heard:
    """One real request of whatever kind the model answers."""
    named = ((MACHINE_PROFILE, asked.profile), (POOL, asked.pool))
    headers = {name: value for name, value in named if value is not None}
    item = {"text": TEXT}
    known = model.value if isinstance(model, Reply) else None
    outputs = known.get("outputs", []) if isinstance(known, dict) else []
    if "score" in outputs:
        operation, body = "score", {"query": item, "items": [item]}
    elif {"dense", "sparse", "multivector"} & set(outputs) or not outputs:
        operation, body = "encode", {"items": [item]}
    else:
        operation, body = "extract", {"items": [item], "params": {"labels": ["thing"]}}
    path = operation_path(operation, quote(asked.model, safe="/:"))
    return await _heard(api, "POST", path, body, headers)


async def _heard(api: Api, method: str, path: str, body: Any = None, headers: Mapping[str, str] | None = None) -> Heard:
    try:
        return await api.reply(method, path, body=body, headers=headers)
    except httpx.HTTPError as error:
        return NoReply(_gap(error), str(error) or type(error).__name__)


def _gap(error: httpx.HTTPError) -> Gap:
    behind = list(causes(error))
    if any(isinstance(cause, socket.gaierror) for cause in behind):
        return Gap.NAME
    if any(isinstance(cause, ssl.SSLError) for cause in behind):
        return Gap.TLS
    if isinstance(error, httpx.TimeoutException):
        return Gap.TIMEOUT
    return Gap.REFUSED if isinstance(error, httpx.ConnectError) else Gap.OTHER


def _demand(metrics: Heard) -> Mapping[tuple[str, str], float] | None:
    if not isinstance(metrics, Reply) or metrics.status != OK:
        return None
    try:
        return {group: sum(pools.values()) for group, pools in parse(metrics.text).demand.items()}
    except ValueError:
        return None


def _is_ok(heard: Heard | None) -> bool:
    return isinstance(heard, Reply) and heard.status == OK


def _comes(heard: Heard) -> bool:
    """True while waiting can help."""
    return isinstance(heard, Reply) and (heard.status == 202 or heard.code in _COMES)  # noqa: PLR2004 - older dialect


def _said(heard: Heard) -> str:
    return heard.reason if isinstance(heard, NoReply) else heard.code
