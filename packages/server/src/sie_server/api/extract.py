"""`POST /v1/extract/{model}`: what is in each item."""

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

    rows = (found for found in extracted.rows if not isinstance(found, Problem))
    findings = sum(len(each) for found in rows for each in found.values() if isinstance(each, tuple))
    size = BYTES_PER_FINDING * (findings + len(extracted.rows))
    media, payload = write() if size < OFF_LOOP_BYTES else await context.pipeline.run(write)
    return media, payload, timing_headers(extracted.cost)


def extract_reply(request: ExtractRequest, extracted: Extracted) -> dict[str, Any]:
    """The body of an extract answer."""
    found = zip(request.items, extracted.rows, strict=True)
    return {
        "model": extracted.model,
        "items": [_result(id_of(item, at), row) for at, (item, row) in enumerate(found)],
        "usage": usage(extracted.cost),
    }


def _result(name: str, found: Found) -> ExtractResult:
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
    data = found.get("data")
    if isinstance(data, base.Data):
        result["data"] = dict(data.values)
    for each in (each for findings in found.values() if isinstance(findings, tuple) for each in findings):
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
    return result
