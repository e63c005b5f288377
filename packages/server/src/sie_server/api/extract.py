"""`POST /v1/extract/{model}`: what is in each item."""

from collections.abc import Mapping
from typing import Any

from starlette.types import Scope

from sie_protocol.codec import encode_body
from sie_protocol.errors import Problem
from sie_protocol.items import (
    Classification,
    DetectedObject,
    Entity,
    ExtractParams,
    ExtractRequest,
    ExtractResult,
    Relation,
    id_of,
)
from sie_server.adapters import base
from sie_server.api.edge import header
from sie_server.api.tasks import OFF_LOOP_BYTES, Outcome, Reply, TaskContext, decoded, timing_headers, usage
from sie_server.engine import extraction
from sie_server.engine.results import Extracted, Found

NO_PARAMS = ExtractParams()
BYTES_PER_FINDING = 100  # about: names of fields, numbers, a label and a few words


async def extract(context: TaskContext, scope: Scope, body: bytes, outcome: Outcome) -> Reply:
    """Answer one extract request."""
    name: str = scope["path_params"]["model"]
    outcome.model = context.engine.lookup(name).model.sie_id
    request = await decoded(context, body, header(scope, b"content-type"), ExtractRequest)
    extracted = await extraction.extract(context.engine, name, request.items, request.params or NO_PARAMS)
    outcome.spent(extracted.cost)
    accept = header(scope, b"accept")

    def write() -> tuple[str, bytes]:
        return encode_body(extract_reply(request, extracted), accept)

    size = BYTES_PER_FINDING * sum(map(_size, extracted.rows))
    media, payload = write() if size < OFF_LOOP_BYTES else await context.pipeline.run(write)
    return media, payload, timing_headers(extracted.cost)


def extract_reply(request: ExtractRequest, extracted: Extracted) -> dict[str, Any]:
    """The body of an extract answer."""
    found = zip(request.items, extracted.rows, strict=True)
    return {
        "model": extracted.model,
        "items": [
            _result(id_of(item, at), row, tells_evidence=extracted.tells_evidence)
            for at, (item, row) in enumerate(found)
        ],
        "usage": usage(extracted.cost),
    }


def _size(found: Found) -> int:
    """How much there is to write, in findings."""
    if isinstance(found, Problem):
        return 1
    return 1 + sum(map(_parts, found.values()))


def _parts(found: base.Findings | base.Data) -> int:
    return sum(1 for _ in found.pieces()) if isinstance(found, base.Data) else len(found)


def _result(name: str, found: Found, *, tells_evidence: bool) -> ExtractResult:
    result: ExtractResult = {
        "id": name,
        "entities": [],
        "relations": [],
        "classifications": [],
        "objects": [],
        "data": {},
    }
    if isinstance(found, Problem):
        result["error"] = {"code": str(found.code), "message": found.message}
        return result
    for findings in found.values():
        if isinstance(findings, base.Data):
            result["data"] = _told(findings.values, tells_evidence=tells_evidence)
        else:
            _add(result, findings)
    return result


def _told(value: base.Value, *, tells_evidence: bool) -> Any:
    """Data with each piece as its text, or with what the model knows of it in its place."""
    match value:
        case base.Piece(text, score, start, end):
            return {"text": text, "score": score, "start": start, "end": end} if tells_evidence else text
        case str() | int() | float() | None:
            return value
        case Mapping():
            return {name: _told(each, tells_evidence=tells_evidence) for name, each in value.items()}
        case _:
            return [_told(each, tells_evidence=tells_evidence) for each in value]


def _add(result: ExtractResult, findings: base.Findings) -> None:
    for each in findings:
        match each:
            case base.Passage(text, label, score, bbox):
                passage: Entity = {
                    "text": text,
                    "label": label,
                    "score": score,
                    "start": None,
                    "end": None,
                    "bbox": None if bbox is None else list(bbox),
                }
                result["entities"].append(passage)
            case base.Entity(text, label, score, start, end):
                entity: Entity = {
                    "text": text,
                    "label": label,
                    "score": score,
                    "start": start,
                    "end": end,
                    "bbox": None,
                }
                result["entities"].append(entity)
            case base.Classification(label, score):
                result["classifications"].append(Classification(label=label, score=score))
            case base.Relation(head, tail, relation, score):
                found_one = Relation(head=head, tail=tail, relation=relation, score=score)
                result["relations"].append(found_one)
            case base.DetectedObject(label, score, bbox):
                result["objects"].append(DetectedObject(label=label, score=score, bbox=list(bbox)))
