"""Names on the wire: headers, media types and paths. Nothing else in the project spells them out."""

from typing import Final

# Request
MACHINE_PROFILE: Final = "X-SIE-MACHINE-PROFILE"
POOL: Final = "X-SIE-Pool"
SDK_VERSION: Final = "X-SIE-SDK-Version"
REQUEST_ID: Final = "X-Request-ID"
AUTHORIZATION: Final = "Authorization"
PREFER: Final = "Prefer"
WAIT: Final = "X-SIE-Wait"
TIMEOUT: Final = "X-SIE-Timeout"
ATTEMPT: Final = "X-SIE-Attempt"

# Response; WAIT is one too: how long a router that could not serve would keep the next attempt
SERVER_VERSION: Final = "X-SIE-Server-Version"
ERROR_CODE: Final = "X-SIE-Error-Code"
WORKER: Final = "X-SIE-Worker"
TRACE_ID: Final = "X-Trace-ID"
RETRY_AFTER: Final = "Retry-After"
PREFERENCE_APPLIED: Final = "Preference-Applied"
WWW_AUTHENTICATE: Final = "WWW-Authenticate"

# Response, timings in milliseconds with two decimals
QUEUE_TIME: Final = "X-Queue-Time"
TOKENIZATION_TIME: Final = "X-Tokenization-Time"
INFERENCE_TIME: Final = "X-Inference-Time"
POSTPROCESSING_TIME: Final = "X-Postprocessing-Time"  # where there was some
TOTAL_TIME: Final = "X-Total-Time"

# Media types
MSGPACK: Final = "application/msgpack"
X_MSGPACK: Final = "application/x-msgpack"
JSON: Final = "application/json"

# Paths
INFERENCE_OPERATIONS: Final = ("encode", "score", "extract")
MODELS: Final = "/v1/models"
EMBEDDINGS: Final = "/v1/embeddings"
RERANK: Final = "/v1/rerank"
RERANK_V2: Final = "/v2/rerank"
POOLS: Final = "/v1/pools"
ROUTE_EXPLAIN: Final = "/v1/route/explain"
HEALTH: Final = "/health"
HEALTHZ: Final = "/healthz"
READYZ: Final = "/readyz"
LIVEZ: Final = "/livez"
METRICS: Final = "/metrics"
WORKER_STATUS: Final = "/ws/status"
CLUSTER_STATUS: Final = "/ws/cluster-status"


def operation_path(operation: str, model: str) -> str:
    """Path of one inference call, for example `/v1/encode/BAAI/bge-m3`; slashes of the model id stay as they are."""
    return f"/v1/{operation}/{model}"
