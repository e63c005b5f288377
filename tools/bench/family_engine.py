"""The worker's side of `families.py`: a catalogue of one model, and its engine's answers as plain numbers."""

import json
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

from family_kit import Answer, Family, Size, Work, vector, written
from sie_protocol.items import EncodeParams, ExtractParams, Item
from sie_server.adapters.base import Classification, Data, DetectedObject, Entity, Passage, Relation
from sie_server.engine.encoding import encode
from sie_server.engine.engine import Engine
from sie_server.engine.extraction import extract
from sie_server.engine.scoring import score
from sie_server.settings import Settings, usable_cores


def settings_for(family: Family, size: Size, folder: Path, name: str) -> Settings:
    """Of a worker that has this model only."""
    for part in ("models", "bundles"):
        (folder / part).mkdir()
    profile = {"adapter": family.adapter, "adapter_options": dict(family.options)}
    entry = {"sie_id": name, "weights_path": str(folder / "model"), "profiles": {"default": profile}}
    (folder / "models/model.yaml").write_text(json.dumps({**entry, **family.entry(size)}))
    (folder / "bundles/default.yaml").write_text(json.dumps({"name": "default", "adapters": [family.adapter]}))
    return Settings(
        models_dir=folder / "models",
        bundles_dir=folder / "bundles",
        local_cache=folder / "cache",
        device="cpu",
        cores=usable_cores(),
        drain_linger_s=0,
    )


def asked(engine: Engine, name: str, work: Work) -> Callable[..., Awaitable[list[Answer]]]:
    """One request with all inputs; `tell=False` leaves its answers as the engine gives them."""

    async def once(*, tell: bool = True) -> list[Answer]:
        match work.task:
            case "encode":
                encoded = await encode(engine, name, work.items, EncodeParams(**work.params))
                return [_vectors(row) for row in encoded.rows] if tell else []
            case "score":
                scored = await score(engine, name, Item(text=work.query), work.items)
                return [{"score": each} for each in scored.scores]
            case _:
                extracted = await extract(engine, name, work.items, ExtractParams(**work.params))
                return [_findings(row) for row in extracted.rows] if tell else []

    return once


def _vectors(row: Any) -> Answer:
    parts = (vector(kind, each.values, each.indices) for kind, each in row.items())
    return dict(pair for part in parts for pair in part.items())


def _findings(row: Any) -> Answer:
    return dict(pair for kind, output in row.items() for pair in _told(kind, output))


def _told(kind: str, output: Any) -> Iterator[tuple[str, float]]:
    if isinstance(output, Data):
        yield from written(dict(output.values)).items()
        return
    for at, each in enumerate(output):
        match each:
            case Entity():
                yield f"{each.label} {each.start} {each.end}", each.score
            case Classification():
                yield each.label, each.score
            case Relation():
                yield f"{each.relation} {each.head} {each.tail}", each.score
            case DetectedObject():
                yield f"object {at}", each.score
            case Passage():
                continue  # its text is among the data as well
            case _:
                raise TypeError(f"{kind} holds {each!r}")
