"""What an API server was asked by whom, from its own audit log: the way to compare a role with what its holder does."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import msgspec

# Written when an answer begins, so a watch shows at once, and before the client has the answer.
POLICY: Final[Mapping[str, Any]] = {
    "apiVersion": "audit.k8s.io/v1",
    "kind": "Policy",
    "omitStages": ["RequestReceived"],
    "rules": [{"level": "Metadata", "userGroups": ["system:serviceaccounts"]}, {"level": "None"}],
}


@dataclass(frozen=True, slots=True, order=True)
class Right:
    """One thing that RBAC allows or does not; `group` is empty for the core group."""

    group: str
    resource: str
    verb: str


@dataclass(frozen=True, slots=True)
class Asked:
    """One request, and whether RBAC allowed it."""

    right: Right
    was_allowed: bool


class _Object(msgspec.Struct, frozen=True, rename="camel"):
    resource: str = ""
    namespace: str = ""
    api_group: str = ""


class _User(msgspec.Struct, frozen=True):
    username: str


class _Event(msgspec.Struct, frozen=True, rename="camel"):
    user: _User
    verb: str
    object_ref: _Object = _Object()
    annotations: dict[str, str] = {}


def rights(rules: Sequence[Mapping[str, Any]]) -> frozenset[Right]:
    """Everything that the rules of a Role allow."""
    return frozenset(
        Right(group, resource, verb)
        for rule in rules
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    )


def asked_by(log: Path, namespace: str, name: str) -> list[Asked]:
    """What a service account asked for in its own namespace so far; a watch that ended is told twice."""
    user = f"system:serviceaccount:{namespace}:{name}"
    whole_lines, _, _ = log.read_bytes().rpartition(b"\n")
    events = (msgspec.json.decode(line, type=_Event) for line in whole_lines.splitlines())
    return [
        Asked(
            Right(event.object_ref.api_group, event.object_ref.resource, event.verb),
            was_allowed=event.annotations.get("authorization.k8s.io/decision") == "allow",
        )
        for event in events
        if event.user.username == user and event.object_ref.namespace == namespace
    ]
