"""Which link of the chain is broken, and how to mend it. Pure: facts in, findings out; each link is one function."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum, auto
from typing import Any, Final

from sie_cli.api import Reply
from sie_cli.doctor.facts import OK, Facts, Gap, Heard, NoReply, decision_of
from sie_protocol.errors import ErrorCode
from sie_protocol.headers import SERVER_VERSION
from sie_protocol.versions import is_skewed
from sie_sdk.capacity import ROUTER_TYPES


class Verdict(StrEnum):
    """How a link is. SKIPPED: it could not, or need not, be tried."""

    OK = auto()
    BROKEN = auto()
    SKIPPED = auto()


@dataclass(frozen=True, slots=True)
class Finding:
    """One link: what was found, and what to do about it."""

    link: str
    verdict: Verdict
    found: str
    fix: str = ""


Check = Callable[[Facts], Finding]


def diagnose(facts: Facts) -> tuple[Finding, ...]:
    """Every link in order; behind a broken one nothing can be judged."""
    findings: list[Finding] = []
    for check in CHAIN:
        finding = check(facts)
        findings.append(finding)
        if finding.verdict is Verdict.BROKEN or (check is catalogue and not facts.asked.model):
            break
    return tuple(findings)


def is_sound(findings: Sequence[Finding]) -> bool:
    """True when no link is broken."""
    return all(finding.verdict is not Verdict.BROKEN for finding in findings)


_GAP_FIXES: Final[Mapping[Gap, str]] = {
    Gap.NAME: "check the host name of --url; in Kubernetes it is SERVICE.NAMESPACE.svc, outside the Ingress's",
    Gap.REFUSED: "check host and port of --url; locally: sie up; in Kubernetes: kubectl get pods,svc of the router",
    Gap.TLS: "check http against https in --url, and that the certificate is for this host and not expired",
    Gap.TIMEOUT: "a firewall or an overloaded router swallows requests; try from inside the cluster",
    Gap.OTHER: "check --url and the proxy in between",
}


def reach(facts: Facts) -> Finding:
    """Does a SIE router answer at all."""
    heard = facts.health
    if isinstance(heard, NoReply):
        return _broken("reach", f"no answer from {facts.asked.url}: {heard.reason}", _GAP_FIXES[heard.gap])
    if heard.status in (401, 403):
        return _sound("reach", f"{facts.asked.url} answers")
    kind = heard.value.get("type") if isinstance(heard.value, dict) else None
    if kind not in ROUTER_TYPES:
        what = f"a SIE {kind}" if kind else f"something that is no SIE router (HTTP {heard.status})"
        return _broken("reach", f"{what} answers at {facts.asked.url}", "point --url to the router, not to a worker")
    return _sound("reach", f"a router answers at {facts.asked.url}")


def token(facts: Facts) -> Finding:
    """Are we let in."""
    for heard in (facts.health, facts.model):
        if isinstance(heard, Reply) and heard.status in (401, 403):
            fix = "pass --api-key or set SIE_API_KEY"
            if facts.asked.has_key:
                fix = "the key is not one of the router's tokens: compare it with the Secret behind SIE_AUTH_TOKEN"
            return _broken("token", f"{heard.code}: {_message(heard)}", fix)
    return _sound("token", "accepted" if facts.asked.has_key else "none given, none asked for")


def version(facts: Facts) -> Finding:
    """Are the two sides close enough to understand each other."""
    theirs = facts.health.headers.get(SERVER_VERSION.lower()) if isinstance(facts.health, Reply) else None
    ours = facts.asked.version
    if theirs is None:
        return Finding("version", Verdict.SKIPPED, "the router does not tell its version")
    if is_skewed(ours, theirs):
        fix = f"pip install 'sie=={theirs}', or bring the cluster to {ours}"
        return _broken("version", f"this is {ours}, the cluster is {theirs}; more than one minor version apart", fix)
    return _sound("version", f"ours {ours}, theirs {theirs}")


def catalogue(facts: Facts) -> Finding:
    """Is the model known, and does a bundle run it."""
    heard, model = facts.model, facts.asked.model
    if not isinstance(heard, Reply) or heard.status != OK:
        fix = (
            "sie models lists what there is; a model needs a file in SIE_MODELS_DIR of router and workers, and a "
            "bundle in SIE_BUNDLES_DIR that names its adapter"
        )
        return _broken("catalogue", _refusal(heard), fix)
    if not model:
        known = f"{len(heard.value.get('models', []))} models are known"
        return Finding(
            "catalogue", Verdict.SKIPPED, f"{known}; -m MODEL follows a request for one of them to its answer"
        )
    bundles = heard.value.get("bundles", [])
    return _sound("catalogue", f"'{model}' is known; bundles: {', '.join(bundles)}")


def profile(facts: Facts) -> Finding:
    """Is there a configured group of workers that the request belongs to."""
    decision = decision_of(facts.route)
    if not decision:
        return Finding("profile", Verdict.SKIPPED, f"the router does not explain routes: {_refusal(facts.route)}")
    if decision["action"] == "reject":
        fix = _PROFILE_FIXES.get(decision["code"], "")
        if decision["code"] == ErrorCode.GPU_NOT_CONFIGURED and facts.asked.pool is not None:
            fix = "make a pool with what the model needs: sie pools create NAME --gpus PROFILE=WORKERS --bundle NAME"
        return _broken("profile", f"{decision['code']}: {decision['message']}", fix)
    if decision["action"] == "provision" and not decision["creates_demand"]:
        group = f"{decision['profile']}/{decision['bundle']}"
        fix = "add a worker pool of this machineProfile and bundle to the values of the chart (workers.pools)"
        return _broken("profile", f"no configured group {group}: waiting for it creates no demand", fix)
    return _sound("profile", f"the request would {decision['action']}: {_where(decision)}")


_PROFILE_FIXES: Final[Mapping[str, str]] = {
    ErrorCode.GPU_NOT_CONFIGURED: "use one of those profiles with --gpu, or add a pool to workers.pools of the chart",
    ErrorCode.BUNDLE_CONFLICT: "leave the bundle away, or name one of the model's own (sie models)",
    ErrorCode.POOL_NOT_FOUND: "sie pools create NAME --gpus PROFILE=WORKERS; a lease ends 20 minutes after a renewal",
    ErrorCode.FORBIDDEN: "the pool belongs to another token; use that one",
}

_IDLE: Final[Mapping[str, str]] = {
    "draining": "it finishes what it has and goes; if no other comes, look at why it was stopped: kubectl describe pod",
    "wrong_bundle": "the model needs another bundle: set the bundle of a pool of this profile to one of the model's",
    "wrong_profile": "the worker has another machine profile: compare SIE_MACHINE_PROFILE of the pod with --gpu",
    "not_ready": "it starts; its log tells what it waits for: kubectl logs",
    "disconnected": "the router cannot connect to it: is the port open, does the pod still exist",
    "stale": "it has been silent for 10 s: is its node alive",
    "ejected": "it failed too often and is probed: look into its log",
    "other_pool": "it is reserved by another pool: sie pools list",
}


def demand(facts: Facts) -> Finding:
    """Does the miss of the planted request show in the router's metrics."""
    if _is_served(facts) or not _asked_for_worker(facts):
        return _sound("demand", "a worker is there; none had to be asked for")
    if facts.demand is None:
        fix = "GET /metrics of the router must be readable: check its port, NetworkPolicy and token"
        return _broken("demand", f"metrics cannot be read: {_refusal(facts.metrics)}", fix)
    group = _group(facts)
    if group is None or not facts.demand.get(group):
        fix = "the demand expired or another replica noted it: point --url to one router, and compare clocks"
        return _broken("demand", f"sie_router_pending_demand of {_named(group)} is 0 after a miss", fix)
    return _sound("demand", f"sie_router_pending_demand of {_named(group)} is {facts.demand[group]:g}")


def scrape(facts: Facts) -> Finding:
    """Does Prometheus read the routers, and does the autoscaler's query give the demand."""
    seen = facts.prometheus
    if seen is None:
        return Finding("scrape", Verdict.SKIPPED, "no --prometheus given")
    if seen.trouble is not None:
        fix = "check --prometheus and autoscaling.prometheusAddress of the chart; KEDA then runs fallbackReplicas"
        return _broken("scrape", f"Prometheus: {seen.trouble}", fix)
    if seen.routers < (facts.asked.routers or 1):
        fix = "set serviceMonitor.enabled of the chart, and serviceMonitor.labels as your Prometheus selects by"
        wanted = facts.asked.routers or "at least 1"
        return _broken("scrape", f"Prometheus has series of {seen.routers} routers, not {wanted}", fix)
    if not _is_served(facts) and _asked_for_worker(facts) and not seen.demand:
        fix = f"run it by hand: {seen.query}; profile, bundle and scrape age decide"
        return _broken("scrape", f"KEDA's query gives {seen.demand}, which is not above activation 0", fix)
    return _sound("scrape", f"{seen.routers} routers scraped; KEDA's query gives {seen.demand}")


def autoscaler(facts: Facts) -> Finding:
    """Did a worker come."""
    if _is_served(facts) or not _still_provisioning(facts):
        return _sound("autoscaler", "a worker of the group is there")
    idle = _idle_worker(facts)
    if idle is not None:
        name, why = idle
        return _broken("autoscaler", f"worker {name} takes no requests: {why}", _IDLE[why])
    group = _named(_group(facts))
    fix = (
        "kubectl get scaledobject,hpa (READY and ACTIVE true?), kubectl get pods (Pending: kubectl describe pod shows "
        "quota and node provisioning: 'scale-up failed', 'exceeded quota', GPU stock of the zone); locally: is sie up "
        "running with autoscaling.enabled"
    )
    return _broken("autoscaler", f"demand stands, but no worker of {group} came within {facts.asked.wait_s:g} s", fix)


def model(facts: Facts) -> Finding:
    """Does the worker load the model and answer."""
    last = facts.attempts[-1].heard if facts.attempts else None
    if isinstance(last, Reply) and last.status == OK:
        return _sound("model", f"answered {facts.attempts[-1].at:.1f} s after the first try")
    if isinstance(last, Reply) and last.code == ErrorCode.MODEL_LOAD_FAILED:
        kind = last.error.get("error_class", "unknown")
        fix = _LOAD_FIXES.get(str(kind), "see the worker's log; mend the model file, the token or the memory limit")
        return _broken("model", f"the worker cannot load it ({kind}): {_message(last)}", fix)
    if isinstance(last, Reply) and last.code in (ErrorCode.MODEL_LOADING, ErrorCode.LORA_LOADING):
        fix = "a large download: try again with a larger --wait, or fill the cluster cache (SIE_CLUSTER_CACHE)"
        return _broken("model", f"still loading after {facts.asked.wait_s:g} s", fix)
    return _broken("model", _refusal(last), "look for the request id in the logs of router and worker")


_LOAD_FIXES: Final[Mapping[str, str]] = {
    "GATED": "set HF_TOKEN of the workers to a token that may read the model",
    "NETWORK": "give the workers a way to the hub, or fill a cluster cache and set SIE_CLUSTER_CACHE",
    "NOT_FOUND": "check hf_id and revision in the model's file",
    "DEPENDENCY": "run the model in a bundle that has what its adapter needs",
    "OOM": "the model does not fit: a larger machine profile, or a smaller dtype",
}

CHAIN: Final[tuple[Check, ...]] = (
    reach, token, version, catalogue, profile, demand, scrape, autoscaler, model,
)  # fmt: skip


def _sound(link: str, found: str) -> Finding:
    return Finding(link, Verdict.OK, found)


def _broken(link: str, found: str, fix: str) -> Finding:
    return Finding(link, Verdict.BROKEN, found, fix)


def _message(heard: Reply) -> str:
    return str(heard.error.get("message") or heard.text[:200])


def _refusal(heard: Heard | None) -> str:
    match heard:
        case None:
            return "not asked"
        case NoReply(_, reason):
            return reason
        case _:
            return f"{heard.code}: {_message(heard)}"


def _code(heard: Heard) -> str:
    if isinstance(heard, NoReply):
        return ""
    return str(ErrorCode.PROVISIONING) if heard.status == 202 else heard.code  # noqa: PLR2004 - the older dialect


def _is_served(facts: Facts) -> bool:
    last = facts.attempts[-1].heard if facts.attempts else None
    return isinstance(last, Reply) and last.status == OK and not _asked_for_worker(facts)


def _asked_for_worker(facts: Facts) -> bool:
    return bool(facts.attempts) and _code(facts.attempts[0].heard) == ErrorCode.PROVISIONING


def _still_provisioning(facts: Facts) -> bool:
    return bool(facts.attempts) and _code(facts.attempts[-1].heard) == ErrorCode.PROVISIONING


def _group(facts: Facts) -> tuple[str, str] | None:
    decision = decision_of(facts.route)
    return (decision["profile"], decision["bundle"]) if "profile" in decision else None


def _named(group: tuple[str, str] | None) -> str:
    return "the group" if group is None else f"{group[0]}/{group[1]}"


def _where(decision: Mapping[str, Any]) -> str:
    return str(decision.get("worker") or f"{decision['profile']}/{decision['bundle']}, pool {decision['pool']}")


def _idle_worker(facts: Facts) -> tuple[str, str] | None:
    """A worker that could have served but does not, and why; those of other profiles stand back."""
    group, route = _group(facts), facts.route
    if group is None or not isinstance(route, Reply):
        return None
    near = [each for each in route.value["workers"] if each["profile"] == group[0] and each["why"] in _IDLE]
    return (near[0]["name"] or near[0]["url"], near[0]["why"]) if near else None
