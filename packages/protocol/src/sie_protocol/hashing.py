"""The hash by which a router and its workers notice that they read different model catalogues."""

import hashlib
import json
from collections.abc import Iterable

import msgspec

from sie_protocol.catalog import ModelConfig


def bundle_config_hash(models: Iterable[ModelConfig]) -> str:
    """SHA-256 (hex) over what decides how each model of a bundle runs; empty for no models.

    Independent of the order of models, profiles and options.
    """
    rows = [
        {
            "sie_id": model.sie_id,
            "profiles": [
                {
                    "name": name,
                    "config": {
                        "adapter_path": profile.adapter,
                        "max_batch_tokens": profile.max_batch_tokens,
                        "compute_precision": profile.compute_precision,
                        "adapter_options": profile.adapter_options or None,
                        **({} if profile.lora is None else {"lora": msgspec.to_builtins(profile.lora)}),
                    },
                }
                for name, profile in sorted(model.profiles.items())
            ],
        }
        for model in sorted(models, key=lambda model: model.sie_id)
    ]
    if not rows:
        return ""
    return hashlib.sha256(json.dumps(rows, sort_keys=True, separators=(",", ":")).encode()).hexdigest()
