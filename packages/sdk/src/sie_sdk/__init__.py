"""Python client of SIE: `SIEClient` for threads, `SIEAsyncClient` for asyncio; same methods, arguments and errors."""

from typing import TYPE_CHECKING, Any

from sie_protocol.versions import VERSION
from sie_sdk._sync.client import SIEClient
from sie_sdk.errors import (
    IncompleteBatchError,
    InputTooLongError,
    LoraLoadingError,
    ModelLoadFailedError,
    ModelLoadingError,
    PoolError,
    PoolForbiddenError,
    PoolNotFoundError,
    ProvisioningError,
    RateLimitError,
    RequestError,
    ResourceExhaustedError,
    ServerError,
    SIEConnectionError,
    SIEError,
)
from sie_sdk.messages import WaitEvent

if TYPE_CHECKING:
    from sie_sdk._async.client import SIEAsyncClient

__version__ = VERSION

__all__ = [
    "SIEClient",
    "SIEAsyncClient",
    "WaitEvent",
    "SIEError",
    "SIEConnectionError",
    "ProvisioningError",
    "ModelLoadingError",
    "LoraLoadingError",
    "RequestError",
    "InputTooLongError",
    "RateLimitError",
    "PoolError",
    "PoolNotFoundError",
    "PoolForbiddenError",
    "ServerError",
    "ModelLoadFailedError",
    "ResourceExhaustedError",
    "IncompleteBatchError",
    "__version__",
]


def __getattr__(name: str) -> Any:
    """Load asyncio's half when somebody asks for it: it is a third of the time that importing the SDK takes."""
    if name != "SIEAsyncClient":
        raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
    from sie_sdk._async.client import SIEAsyncClient  # noqa: PLC0415 - see above

    globals()[name] = SIEAsyncClient
    return SIEAsyncClient
