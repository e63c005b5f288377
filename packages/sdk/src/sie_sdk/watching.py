"""Live status of a cluster or of one worker: where it is told, and when to connect again. Pure.

`watch` needs the package websockets: pip install "sie-sdk[watch]". httpx has no websockets, and whoever only embeds
texts need not install any.
"""

from collections.abc import Mapping
from typing import Any, Final, Literal, Protocol

import msgspec

from sie_protocol.headers import AUTHORIZATION, CLUSTER_STATUS, HEALTH, SDK_VERSION, WORKER_STATUS
from sie_protocol.versions import VERSION
from sie_sdk import answers, calls, flow
from sie_sdk.capacity import ROUTER_TYPES, or_of_worker
from sie_sdk.errors import Asker, SIEError, error_for
from sie_sdk.messages import Answer, Loss, Plan, Request, WaitEvent
from sie_sdk.refusals import read_refusal
from sie_sdk.retry import Terms
from sie_sdk.settings import Settings
from sie_sdk.types import StatusFrame

Mode = Literal["auto", "cluster", "worker"]

MISSING: Final = 'watch() needs the package websockets: pip install "sie-sdk[watch]"'
CLOSE_TIMEOUT_S: Final = 1.0
MAX_FRAME_BYTES: Final = 16 << 20  # a router with thousands of workers
_PATHS: Final[Mapping[str, str]] = {"cluster": CLUSTER_STATUS, "worker": WORKER_STATUS}
_FIRST_DELAY_S, _MAX_DELAY_S, _SPREAD = 0.5, 10.0, 0.5
_TOO_MANY_REQUESTS: Final = 429


def known_path(mode: str) -> str | None:
    """Where frames are told; None: the server has to be asked.

    Raises:
        ValueError: the mode does not exist.
    """
    if mode == "auto":
        return None
    if mode not in _PATHS:
        raise ValueError(f"mode is {mode!r}; choose one of: auto, {', '.join(_PATHS)}")
    return _PATHS[mode]


def find_path(terms: Terms) -> Plan[str]:
    """Ask the server whether it is a router or a worker, and so where its frames are. Workers have no `/health`."""
    asked = flow.single(Request("GET", HEALTH, calls.ASK_JSON), terms, _path_of)
    return or_of_worker(asked, lambda _: WORKER_STATUS)


class _Health(msgspec.Struct, frozen=True):
    type: str = ""


def _path_of(answer: Answer) -> str:
    health: _Health = answers.read(answer, kind=_Health, pick=lambda it: it)
    return CLUSTER_STATUS if health.type in ROUTER_TYPES else WORKER_STATUS


def address(settings: Settings, path: str) -> str:
    """The websocket's URL: http becomes ws, https becomes wss."""
    return "ws" + settings.base_url.removeprefix("http") + path


def headers(settings: Settings) -> list[tuple[str, str]]:
    """What the handshake carries beside the user agent."""
    key = [(AUTHORIZATION, f"Bearer {settings.api_key}")] if settings.api_key else []
    return [(SDK_VERSION, VERSION), *key, *settings.headers.items()]


USER_AGENT: Final = f"sie-sdk/{VERSION}"


def decoded(text: str | bytes) -> StatusFrame | None:
    """One frame, or None for what is none."""
    try:
        return msgspec.json.decode(text, type=dict)  # type: ignore[return-value]  # as the server says
    except msgspec.MsgspecError:
        return None


class Handshake(Protocol):
    """The part of an HTTP response that is needed here."""

    status_code: int
    headers: Any
    body: bytes | bytearray


def refusal(path: str, response: Handshake) -> SIEError | None:
    """The error of a handshake that was refused for good; None: another attempt may find better."""
    told = {name.lower(): value for name, value in response.headers.raw_items()}
    answer = Answer(response.status_code, told, bytes(response.body or b""))
    is_lasting = answer.status < 500 and answer.status != _TOO_MANY_REQUESTS  # noqa: PLR2004 - the class of servers' faults
    if not is_lasting:
        return None
    return error_for(read_refusal(answer), f"GET {path}", waited=None, asker=Asker())


def reconnect(reason: str, attempt: int, elapsed_s: float, draw: float) -> WaitEvent:
    """The wait before the next attempt to connect, the first after a connection being `attempt` 1."""
    delay_s = min(_FIRST_DELAY_S * 2 ** min(attempt - 1, 10), _MAX_DELAY_S)
    return WaitEvent(Loss.CONNECTION_LOST, reason, delay_s * (1 - _SPREAD * draw), attempt, elapsed_s)
