"""Which models there are."""

from collections.abc import Callable

import msgspec
from fastapi import APIRouter, Response

from sie_protocol.catalog import bundle_conflict
from sie_protocol.compat import described, listed
from sie_protocol.headers import JSON, MODELS
from sie_protocol.target import parse_model
from sie_router.api.views import model_info, model_infos
from sie_router.core.fleet import Fleet


def model_routes(snapshot: Callable[[], Fleet]) -> APIRouter:
    """`/v1/models` and `/v1/models/{model}`."""
    routes = APIRouter(tags=["models"])

    @routes.get(MODELS)
    async def list_models() -> Response:
        """List every model of the catalogue, with who has it loaded."""
        return Response(msgspec.json.encode(listed(model_infos(snapshot()))), media_type=JSON)

    @routes.get(MODELS + "/{model:path}")
    async def get_model(model: str) -> Response:
        """Describe one model, named as in a request: in any spelling of its id, with the bundle in front or without."""
        ref = parse_model(model)
        fleet = snapshot()
        info = model_info(fleet, ref.name)
        if info is None:
            raise fleet.models.unknown(ref.name)
        if ref.bundle is not None and ref.bundle not in map(str.lower, info["bundles"]):
            raise bundle_conflict(info["name"], ref.bundle, tuple(info["bundles"]))
        return Response(msgspec.json.encode(described(info)), media_type=JSON)

    return routes
