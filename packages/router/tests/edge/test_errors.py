import httpx
import pytest
from fastapi import FastAPI

from sie_protocol.errors import ErrorCode, Problem
from sie_router.edge.errors import install


def failing_app() -> FastAPI:
    app = FastAPI()
    install(app)

    @app.get("/number/{number}")
    async def number(number: int) -> int:
        return number

    @app.get("/bug")
    async def bug() -> None:
        raise ZeroDivisionError("secret detail")

    @app.get("/known")
    async def known() -> None:
        raise Problem(ErrorCode.QUEUE_FULL, "full", retry_after_s=2.1)

    return app


@pytest.mark.parametrize(
    ("path", "status", "code"),
    [
        ("/number/x", 400, ErrorCode.INVALID_INPUT),
        ("/bug", 500, ErrorCode.INTERNAL_ERROR),
        ("/known", 503, ErrorCode.QUEUE_FULL),
        ("/nowhere", 404, ErrorCode.NOT_FOUND),
    ],
)
async def test_whatever_goes_wrong_leaves_in_the_envelope(path: str, status: int, code: ErrorCode) -> None:
    transport = httpx.ASGITransport(failing_app(), raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://router") as client:
        answer = await client.get(path)
    assert answer.status_code == status
    assert answer.json()["error"]["code"] == answer.headers["x-sie-error-code"] == code
    assert "secret" not in answer.text
    assert answer.headers.get("retry-after") == ("3" if code is ErrorCode.QUEUE_FULL else None)
