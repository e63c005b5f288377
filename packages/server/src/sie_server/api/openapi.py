"""Puts the inference routes into `/openapi.json`: they are plain ASGI, which the framework does not see.

Request schemas come from the types that decode the requests, so that the document cannot say anything else.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import msgspec
from fastapi import FastAPI

from sie_protocol import headers

_REF = "#/components/schemas/{name}"
_ERROR: Mapping[str, Any] = {
    "type": "object",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["code", "message"],
            "properties": {"code": {"type": "string"}, "message": {"type": "string"}},
        }
    },
}
_REFUSALS = {
    "400": "The request cannot be served as it is; the message names what is wrong with it.",
    "404": "This worker has no such model.",
    "413": "The request, or a part of it, is larger than this worker takes.",
    "502": "The model cannot be loaded; `error_class` says why.",
    "503": "Not now: the model is loading, the queue is full or the worker is shutting down; see Retry-After.",
    "504": "The request waited too long for the device.",
}


@dataclass(frozen=True, slots=True)
class Described:
    """One inference route: its path, with `{model}` where the model is part of it, and the type of its body."""

    path: str
    summary: str
    body: type
    speaks_msgpack: bool = False


def describe(app: FastAPI, routes: tuple[Described, ...]) -> None:
    """Add the routes to the app's document, which is built here."""
    document = app.openapi()
    _, components = msgspec.json.schema_components([route.body for route in routes], ref_template=_REF)
    document.setdefault("components", {}).setdefault("schemas", {}).update(components)
    for route in routes:
        document["paths"][route.path] = {"post": _operation(route)}


def _operation(route: Described) -> dict[str, Any]:
    media = [headers.JSON, headers.MSGPACK] if route.speaks_msgpack else [headers.JSON]
    schema = {"$ref": _REF.format(name=route.body.__name__)}
    in_path = {"in": "path", "name": "model", "required": True, "schema": {"type": "string"}}
    profile = {"in": "header", "name": headers.MACHINE_PROFILE, "schema": {"type": "string"}}
    refusal = {headers.JSON: {"schema": _ERROR}}
    return {
        "summary": route.summary,
        "tags": ["inference"],
        "parameters": [*([in_path] if "{model}" in route.path else []), profile],
        "requestBody": {"required": True, "content": {each: {"schema": schema} for each in media}},
        "responses": {
            "200": {
                "description": "The results, in the order of the request.",
                "content": {each: {"schema": {"type": "object"}} for each in media},
            },
            **{status: {"description": text, "content": refusal} for status, text in _REFUSALS.items()},
        },
    }
