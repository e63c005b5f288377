"""Python client of SIE: `SIEClient` for threads, `SIEAsyncClient` for asyncio; same methods, arguments and errors."""

from sie_protocol.versions import VERSION
from sie_sdk._async.client import SIEAsyncClient
from sie_sdk._sync.client import SIEClient
from sie_sdk.errors import (
    IncompleteBatchError,
    InputTooLongError,
    LoraLoadingError,
    ModelLoadFailedError,
    ModelLoadingError,
    ProvisioningError,
    RateLimitError,
    RequestError,
    ResourceExhaustedError,
    ServerError,
    SIEConnectionError,
    SIEError,
)
from sie_sdk.messages import WaitEvent

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
    "ServerError",
    "ModelLoadFailedError",
    "ResourceExhaustedError",
    "IncompleteBatchError",
    "__version__",
]
