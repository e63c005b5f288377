from pathlib import Path

import pytest

from gated_adapter import until
from served_worker import served, write_catalog

M = "org/m"
PROFILES = {
    "default": {"adapter": "hash"},
    "prefixed": {"adapter": "hash", "adapter_options": {"doc_template": "prefix: {text}"}},
    "slow": {"extends": "default", "adapter_options": {"batch_s": 0.001}},
}


async def test_profiles_are_named_in_the_path_or_the_options_and_only_their_own_weights_are_loaded(
    tmp_path: Path,
) -> None:
    settings = write_catalog(tmp_path, {M: {"profiles": PROFILES}})
    async with served(settings) as worker:

        async def vector(model: str, text: str, **params: object) -> list[float]:
            reply = await worker.encode(model, text, **params)
            values: list[float] = reply.json()["items"][0]["dense"]["values"]
            return values

        plain, prefixed = await vector(M, "x"), await vector(M, "prefix: x")
        assert await vector(f"{M}:prefixed", "x") == prefixed != plain
        assert await vector(M, "x", options={"profile": "prefixed"}) == prefixed
        states = {each.name: each for each in worker.worker.engine.statuses()}
        assert set(states) == {M}
        assert states[M].aliases == (f"{M}:prefixed",)
        assert await vector(M, "x", options={"profile": "slow"}) == plain
        assert {each.name for each in worker.worker.engine.statuses()} == {M, f"{M}:slow"}
        listed = (await worker.http.get("/v1/models")).json()["models"]
        assert {name: each["weights"] for name, each in listed[0]["profiles"].items()} == {
            "default": M,
            "prefixed": M,
            "slow": f"{M}:slow",
        }
        assert (await worker.http.get(f"/v1/models/{M}:slow")).json()["state"] == "loaded"


async def test_readiness_names_the_models_it_waits_for_and_the_device_counts(tmp_path: Path) -> None:
    async with served(write_catalog(tmp_path, {M: {}}), preload=(M,)) as worker:
        unready = await worker.http.get("/readyz")
        assert (unready.status_code, unready.text) == (503, f"not ready: loading {M}")
        worker.worker.engine.preload()
        await until(lambda: worker.worker.engine.unready is None)
        for path in ("/readyz", "/livez"):
            assert (await worker.http.get(path)).text == "ok"
        worker.worker.engine.health.problem = "it burns"
        for path in ("/readyz", "/livez"):
            assert (await worker.http.get(path)).status_code == 503
        metrics = (await worker.http.get("/metrics")).text
        assert f'sie_model_memory_bytes{{device="cpu",model="{M}"}} 0.0' in metrics
        assert "sie_memory_used_bytes" in metrics


async def test_a_preload_that_no_catalogue_knows_stops_the_start(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="model 'org/typo' is not on this worker"):
        async with served(write_catalog(tmp_path, {M: {}}), preload=("org/typo",)):
            pass


async def test_a_family_that_is_not_run_with_loras_fails_and_never_answers_without(tmp_path: Path) -> None:
    profiles = {"default": {"adapter": "hash"}, "law": {"extends": "default", "lora": {"weights_path": str(tmp_path)}}}
    async with served(write_catalog(tmp_path, {M: {"profiles": profiles}})) as worker:
        first = await worker.encode(f"{M}:law", "x")
        assert (first.status_code, first.json()["error"]["code"]) == (503, "LORA_LOADING")
        await until(lambda: worker.worker.engine.info_of(f"{M}:law")["state"] == "failed")
        for reply in (await worker.encode(f"{M}:law", "x"), await worker.encode(M, "x", options={"lora": "law"})):
            assert (reply.status_code, reply.json()["error"]["error_class"]) == (502, "DEPENDENCY")
            assert "adapter 'hash' are not run with LoRAs" in reply.json()["error"]["message"]
        assert (await worker.encode(M, "x")).status_code == 200
