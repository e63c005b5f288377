"""The names that programs written for the published SDKs import from here; new ones take them from `sie_sdk`."""

from sie_sdk import (
    IncompleteBatchError,
    InputTooLongError,
    LoraLoadingError,
    ModelLoadFailedError,
    ModelLoadingError,
    PoolError,
    ProvisioningError,
    RateLimitError,
    RequestError,
    ResourceExhaustedError,
    ServerError,
    SIEAsyncClient,
    SIEClient,
    SIEConnectionError,
    SIEError,
)

__all__ = [
    "SIEClient",
    "SIEAsyncClient",
    "SIEError",
    "SIEConnectionError",
    "ProvisioningError",
    "ModelLoadingError",
    "LoraLoadingError",
    "RequestError",
    "InputTooLongError",
    "RateLimitError",
    "PoolError",
    "ServerError",
    "ModelLoadFailedError",
    "ResourceExhaustedError",
    "IncompleteBatchError",
]
