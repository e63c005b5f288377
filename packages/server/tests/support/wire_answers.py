"""Reads answers as a strict client would."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import httpx

from served_worker import BOUND_S
from sie_protocol.errors import RULES, ErrorCode
from sie_protocol.versions import VERSION


def code_of(reply: httpx.Response) -> ErrorCode:
    """The code of a refusal, once its headers and its status fit it."""
    code = ErrorCode(reply.headers["x-sie-error-code"])
    assert reply.status_code == RULES[code].status
    assert reply.headers.get_list("x-sie-server-version") == [VERSION]
    assert ("retry-after" in reply.headers) == RULES[code].retryable
    return code


def error_of(reply: httpx.Response) -> dict[str, Any]:
    """The error of a refusal in the native envelope."""
    body: dict[str, Any] = reply.json()
    assert body["error"] == body["detail"]
    error: dict[str, Any] = body["error"]
    assert error["code"] == code_of(reply)
    return error


async def patiently(send: Callable[[], Awaitable[httpx.Response]]) -> httpx.Response:
    """Repeat a call while its model, or the LoRA on top of it, loads."""
    async with asyncio.timeout(BOUND_S):
        while True:
            reply = await send()
            if reply.headers.get("x-sie-error-code") not in ("MODEL_LOADING", "LORA_LOADING"):
                return reply
            await asyncio.sleep(0.005)
