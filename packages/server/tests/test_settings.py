from pathlib import Path

import pytest

from sie_server.settings import Settings, read


def test_an_empty_environment_gives_the_defaults() -> None:
    settings = read({"HOSTNAME": "h"})
    assert (settings.port, settings.device, settings.bundle, settings.models) == (8080, "auto", "default", ())
    assert (settings.name, settings.machine_profile, settings.pool) == ("h", "", "")
    assert settings.models_dir == Settings().models_dir
    assert settings.cores >= 1


def test_every_variable_is_read() -> None:
    env = {
        "POD_NAME": "pod",
        "HOSTNAME": "host",
        "SIE_DEVICE": "CPU",
        "SIE_MODELS_DIR": "/m",
        "SIE_BUNDLE": "Default",
        "SIE_MODEL_FILTER": "a/b, c",
        "SIE_LOG_JSON": "yes",
        "SIE_TORCH_NUM_THREADS": "3",
        "SIE_DRAIN_GRACE_S": "1.5",
    }
    settings = read(env)
    assert (settings.name, settings.device, settings.models_dir) == ("pod", "cpu", Path("/m"))
    assert (settings.bundle, settings.models, settings.json_logs) == ("default", ("a/b", "c"), True)
    assert (settings.cores, settings.drain_grace_s) == (3, 1.5)


def test_the_caches_are_read_from_the_environment_and_stand_beside_the_hub_s_own() -> None:
    env = {
        "SIE_CLUSTER_CACHE": "gs://bucket/models",
        "SIE_CLUSTER_CACHE_WRITE": "true",
        "SIE_HF_FALLBACK": "false",
        "SIE_DISK_CACHE_ENABLED": "no",
        "SIE_DISK_PRESSURE_THRESHOLD_PERCENT": "70",
        "SIE_CACHE_MAX_BYTES": "1000",
        "HF_HOME": "/models/huggingface",
        "HF_TOKEN": "hf_secret",
    }
    settings = read(env)
    assert (settings.cluster_cache, settings.cluster_cache_write) == ("gs://bucket/models", True)
    assert (settings.hf_fallback, settings.evict_from_disk) == (False, False)
    assert (settings.disk_pressure_percent, settings.cache_max_bytes) == (70.0, 1000)
    assert settings.local_cache == Path("/models/huggingface/sie")
    assert read({**env, "SIE_LOCAL_CACHE": "/m"}).local_cache == Path("/m")
    assert settings.hf_token == "hf_secret"  # noqa: S105 - of this test
    assert "hf_secret" not in repr(settings)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("SIE_DEVICE", "tpu"),
        ("SIE_TORCH_NUM_THREADS", "0"),
        ("SIE_MAX_BATCH_REQUESTS", "many"),
        ("SIE_LOG_JSON", "perhaps"),
        ("SIE_DRAIN_GRACE_S", "-1"),
        ("SIE_QUEUE_TIMEOUT_S", "nan"),
        ("SIE_DISK_PRESSURE_THRESHOLD_PERCENT", "nan"),
        ("SIE_DISK_PRESSURE_THRESHOLD_PERCENT", "101"),
    ],
)
def test_a_value_that_cannot_be_read_is_named(name: str, value: str) -> None:
    with pytest.raises(ValueError, match=f"{name} is '{value}'"):
        read({name: value})
