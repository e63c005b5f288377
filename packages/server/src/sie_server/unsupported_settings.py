"""Variables that the published server of these models reads and this one does not, with what does their work here."""

from types import MappingProxyType
from typing import Final

# How their names begin.
UNSUPPORTED: Final = MappingProxyType(
    {
        "SIE_MAX_BATCH_WAIT_MS": "a batch starts when the device is free and waits for nobody",
        "SIE_ADAPTIVE_BATCHING": "a batch starts when the device is free and waits for nobody",
        "SIE_MAX_ITEM_TEXT_BYTES": "SIE_MAX_ITEM_TEXT_CHARS counts characters",
        "SIE_DEFAULT_COMPUTE_PRECISION": "a model's catalogue entry has compute_precision; a CPU computes in float32",
        "SIE_ATTENTION_BACKEND": "torch chooses the kernel",
        "SIE_PREPROCESSOR_WORKERS": "there is one thread for each core (SIE_TORCH_NUM_THREADS)",
        "SIE_IMAGE_WORKERS": "there is one thread for each core (SIE_TORCH_NUM_THREADS)",
        "SIE_OOM_RECOVERY": "a batch for which there is no memory is always tried in parts",
        "SIE_DISABLE_OOM_RECOVERY": "a batch for which there is no memory is always tried in parts",
        "SIE_GPU_TYPE": "SIE_MACHINE_PROFILE says what requests ask for",
        "SIE_EXTRA_MODELS": "add files to a folder of your own and set SIE_MODELS_DIR",
        "SIE_INSTRUMENTATION": "metrics are always on, spans with SIE_TRACING_ENABLED",
    }
)
