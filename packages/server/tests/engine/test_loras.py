"""LoRAs on top of loaded models: when they load, who goes, what callers hear; no request runs without its own."""

import asyncio
from functools import partial

import msgspec
import pytest

from gated_adapter import Kit, engine_of, gated_model, until
from sie_protocol.catalog import LoraConfig
from sie_protocol.errors import ErrorCode, Problem
from sie_protocol.items import EncodeParams, Item
from sie_server.adapters.base import LoadError
from sie_server.core.lifecycle import COOL_DOWN_S, ErrorClass, State
from sie_server.engine import encoding
from sie_server.engine.models import LoadPolicy
from sie_server.engine.results import Encoded


def first(encoded: Encoded) -> float:
    """The first component of the only row: the words, and 100 for each number of the LoRA."""
    return float(encoded.rows[0]["dense"].values[0])


def is_loaded(kit: Kit, name: str) -> bool:
    return kit.state(f"a:{name}") == "loaded"


async def ready(kit: Kit, *names: str) -> None:
    """Have these LoRAs of model `a` loaded, batches running freely."""
    for gate in kit.gates.values():
        gate.open.set()
        gate.may_read.set()
    if kit.state() != "loaded":
        await kit.load()
    for name in names:
        assert (await kit.refused("x", model=f"a:{name}")).code is ErrorCode.LORA_LOADING
        await until(partial(is_loaded, kit, name))


def held(kit: Kit) -> list[str]:
    """The LoRAs that model `a` holds."""
    return sorted(own.lora.name for own in kit.engine.lookup("a").slot.loras.values() if own.state is State.LOADED)


async def test_many_requests_start_one_load_and_the_model_serves_others_meanwhile() -> None:
    async with engine_of("a", loras=1) as kit:
        kit.gates["a"].open.set()
        assert (await kit.refused("x", model="a:1")).code is ErrorCode.MODEL_LOADING  # first what it goes on top of
        await kit.load()
        for _ in range(5):
            problem = await kit.refused("x", model="a:1")
            assert (problem.code, problem.retry_after_s) == (ErrorCode.LORA_LOADING, 1)
            assert problem.details == {"model": "a:1"}
        assert kit.state("a:1") == "loading"
        assert first(await kit.encode("x")) == 1
        kit.gates["a"].may_read.set()
        await until(lambda: kit.state("a:1") == "loaded")
        assert first(await kit.encode("x", model="a:1")) == 101
        assert (kit.gates["a"].reads, kit.gates["a"].loads) == (["/1"], 1)


async def test_one_batch_holds_requests_of_several_loras_and_of_none_and_each_has_its_own() -> None:
    async with engine_of("a", loras=2) as kit:
        await ready(kit, "1", "2")
        kit.gates["a"].open.clear()
        stuck = kit.send("stuck")
        await kit.entered()
        while kit.gates["a"].entered.acquire(blocking=False):
            pass
        tasks = [kit.send("w w", model=name) for name in ("a:1", "a", "a:2", "a:1")]
        await until(lambda: kit.waiting() == 4)
        kit.gates["a"].open.set()
        assert [first(each) for each in await asyncio.gather(*tasks)] == [102, 2, 202, 102]
        await stuck
    assert kit.gates["a"].batches[-1] == ["w w"] * 4


@pytest.mark.parametrize("options", [{"profile": "2"}, {"lora": "2"}, {"lora_id": "2"}, {"lora": "2", "profile": "2"}])
async def test_a_lora_is_asked_for_among_the_options_as_well(options: dict[str, str]) -> None:
    async with engine_of("a", loras=2) as kit:
        await ready(kit, "2")
        found = await encoding.encode(kit.engine, "a", [Item(text="x")], EncodeParams(options=options))
        assert first(found) == 201


@pytest.mark.parametrize(
    ("name", "options", "named"),
    [
        ("a", {"lora": "/1"}, "no LoRA '/1' .options.lora.; it has: 1, 2"),
        ("a", {"lora_id": "org/any-lora-of-the-hub"}, "no LoRA 'org/any-lora-of-the-hub'"),
        ("a", {"lora": ["1"]}, "no LoRA"),
        ("a", {"lora": ""}, "no LoRA"),
        ("a", {"lora": "default"}, "no LoRA 'default'"),
        ("b", {"lora": "1"}, "it has none"),
        ("a", {"lora": "1", "profile": "2"}, "another LoRA"),
        ("a", {"lora": "1", "profile": "default"}, "or none"),
        ("a", {"lora": "1", "lora_id": "2"}, "two LoRAs"),
        ("a:2", {"lora": "1"}, "another LoRA"),
    ],
)
async def test_what_the_catalogue_does_not_list_is_no_lora_whatever_it_is(
    name: str, options: dict[str, object], named: str
) -> None:
    async with engine_of("a", "b", loras=2) as kit:
        kit.engine.adopt(
            {"a": gated_model("a", kit.gates["a"], kit.memory, 2), "b": gated_model("b", kit.gates["b"], kit.memory)}
        )
        with pytest.raises(Problem, match=named) as refused:
            await encoding.encode(kit.engine, name, [Item(text="x")], EncodeParams(options=options))
        assert refused.value.code is ErrorCode.INVALID_INPUT
        assert kit.gates["a"].reads == kit.gates["b"].reads == []


async def test_the_least_recently_used_goes_and_comes_back() -> None:
    async with engine_of("a", loras=3, max_loras=2) as kit:
        await ready(kit, "1", "2")
        kit.clock.now += 1
        await kit.encode("x", model="a:1")
        await ready(kit, "3")
        assert held(kit) == ["/1", "/3"]
        await ready(kit, "2")
        assert held(kit) == ["/2", "/3"]
        assert first(await kit.encode("x", model="a:2")) == 201
        assert kit.gates["a"].loads == 1


async def test_one_in_use_never_goes_and_who_finds_no_room_is_told_to_come_back() -> None:
    async with engine_of("a", loras=3, max_loras=2) as kit:
        await ready(kit, "1", "2")
        kit.gates["a"].open.clear()
        busy = [kit.send("x", model=f"a:{name}") for name in (1, 2)]
        await until(lambda: kit.depth() == 2)
        problem = await kit.refused("x", model="a:3")
        assert (problem.code, problem.retry_after_s) == (ErrorCode.QUEUE_FULL, 1)
        assert held(kit) == ["/1", "/2"]
        kit.gates["a"].open.set()
        assert [first(each) for each in await asyncio.gather(*busy)] == [101, 201]
        await ready(kit, "3")
        assert len(held(kit)) == 2


async def test_those_that_load_count_as_held() -> None:
    async with engine_of("a", loras=2, max_loras=1) as kit:
        kit.gates["a"].open.set()
        await kit.load()
        assert (await kit.refused("x", model="a:1")).code is ErrorCode.LORA_LOADING
        assert (await kit.refused("x", model="a:2")).code is ErrorCode.QUEUE_FULL


async def test_a_lora_that_fails_for_good_is_remembered_and_never_becomes_the_bare_model() -> None:
    async with engine_of("a", loras=1) as kit:
        kit.gates["a"].read_error = LoadError(ErrorClass.DEPENDENCY, "the LoRA has use_dora")
        kit.gates["a"].may_read.set()
        kit.gates["a"].open.set()
        await kit.load()
        assert (await kit.refused("x", model="a:1")).code is ErrorCode.LORA_LOADING
        await until(lambda: kit.state("a:1") == "failed")
        for _ in range(3):
            kit.clock.now += 1e6
            problem = await kit.refused("x", model="a:1")
            assert (problem.code, problem.retry_after_s) == (ErrorCode.MODEL_LOAD_FAILED, None)
            assert "use_dora" in problem.message
            assert problem.details == {"model": "a:1", "error_class": "DEPENDENCY", "attempts": 1, "permanent": True}
        assert len(kit.gates["a"].reads) == 1
        assert kit.state() == "loaded"
        assert first(await kit.encode("x")) == 1


async def test_a_failure_that_may_pass_is_tried_again_after_its_cool_down() -> None:
    async with engine_of("a", loras=1) as kit:
        gate = kit.gates["a"]
        gate.read_error = LoadError(ErrorClass.NETWORK, "no way to the hub")
        gate.may_read.set()
        gate.open.set()
        await kit.load()
        await kit.refused("x", model="a:1")
        await until(lambda: kit.state("a:1") == "failed")
        assert (await kit.refused("x", model="a:1")).code is ErrorCode.MODEL_LOAD_FAILED
        gate.read_error = None
        kit.clock.now += COOL_DOWN_S[ErrorClass.NETWORK]
        await ready(kit, "1")
        assert first(await kit.encode("x", model="a:1")) == 101


async def test_a_lora_counts_in_the_memory_and_makes_others_go_but_not_what_it_is_for() -> None:
    async with engine_of("a", "b", loras=1, limit_bytes=100) as kit:
        kit.gates["a"].size_bytes, kit.gates["b"].size_bytes, kit.gates["a"].lora_bytes = 50, 40, 30
        await ready(kit)
        await kit.load("b")
        kit.clock.now += 10
        await kit.encode("x", model="b")  # used later than a, which is idle now
        await ready(kit, "1")
        assert (kit.state("a"), kit.state("b")) == ("loaded", "available")
        assert {each.name: each.memory_bytes for each in kit.engine.statuses()} == {"a": 50, "a:1": 30}
        assert kit.engine.lookup("a").slot.held_bytes == 80


async def test_a_lora_without_room_fails_and_the_model_stays() -> None:
    async with engine_of("a", loras=1, limit_bytes=100) as kit:
        kit.gates["a"].size_bytes, kit.gates["a"].lora_bytes = 90, 30
        await ready(kit)
        await kit.refused("x", model="a:1")
        await until(lambda: kit.state("a:1") == "failed")
        assert (await kit.refused("x", model="a:1")).details["error_class"] == "OOM"
        assert first(await kit.encode("x")) == 1


async def test_loras_go_with_the_model_and_are_read_again_for_it() -> None:
    async with engine_of("a", loras=1) as kit:
        await ready(kit, "1")
        await kit.engine.unload("a")
        assert (kit.state("a:1"), held(kit), kit.engine.statuses()) == ("available", [], ())
        await kit.load()
        await ready(kit, "1")
        assert first(await kit.encode("x", model="a:1")) == 101
        assert kit.gates["a"].reads == ["/1", "/1"]


async def test_a_lora_that_was_read_for_a_model_that_has_gone_is_dropped() -> None:
    async with engine_of("a", loras=1) as kit:
        kit.gates["a"].open.set()
        await kit.load()
        await kit.refused("x", model="a:1")
        await until(lambda: len(kit.gates["a"].reads) == 1)
        await kit.engine.unload("a")
        await kit.load()
        kit.gates["a"].may_read.set()
        await ready(kit, "1")
        assert kit.gates["a"].reads == ["/1", "/1"]


async def test_a_lora_that_changed_in_the_catalogue_is_another_one_and_the_model_stays() -> None:
    async with engine_of("a", loras=1) as kit:
        await ready(kit, "1")
        model = kit.engine.lookup("a").model
        changed = msgspec.structs.replace(model.profiles["1"], lora=LoraConfig(weights_path="/7"))
        kit.engine.adopt({"a": msgspec.structs.replace(model, profiles={**model.profiles, "1": changed})})
        assert (kit.state("a"), kit.state("a:1")) == ("loaded", "available")
        await ready(kit, "1")
        assert first(await kit.encode("x", model="a:1")) == 701
        assert kit.gates["a"].loads == 1


async def test_what_routers_and_callers_are_told() -> None:
    async with engine_of("a", loras=2) as kit:
        await ready(kit, "1")
        rows = {each.name: each for each in kit.engine.statuses()}
        assert set(rows) == {"a", "a:1"}  # the other one is not there yet: its requests may go elsewhere
        assert (rows["a"].aliases, rows["a:1"].state, rows["a:1"].queue_depth) == ((), "loaded", 0)
        info = kit.engine.info_of("a")
        assert {name: each.get("lora") for name, each in info["profiles"].items()} == {
            "default": None,
            "1": {"hf_id": None, "state": "loaded", "memory_bytes": 0},
            "2": {"hf_id": None, "state": "available", "memory_bytes": 0},
        }
        assert {each["weights"] for each in info["profiles"].values()} == {"a"}
        assert (kit.engine.info_of("a:1")["loaded"], kit.engine.info_of("a:2")["loaded"]) == (True, False)


async def test_readiness_waits_for_a_preloaded_lora_behind_its_model() -> None:
    async with engine_of("a", loras=2, load_policy=LoadPolicy(preload=("a:1", "a:2"))) as kit:
        assert kit.engine.unready == "loading a, a:1, a:2"
        kit.engine.preload()
        kit.gates["a"].open.set()
        kit.gates["a"].may_load.set()
        await until(lambda: kit.engine.unready == "loading a:1, a:2")
        kit.gates["a"].may_read.set()
        await until(lambda: kit.engine.unready is None)
        assert [first(await kit.encode("x", model=f"a:{name}")) for name in (1, 2)] == [101, 201]


@pytest.mark.parametrize("which", ["read_error", "load_error"])
async def test_a_preloaded_lora_that_fails_keeps_nobody_waiting(which: str) -> None:
    async with engine_of("a", loras=1, load_policy=LoadPolicy(preload=("a:1",))) as kit:
        setattr(kit.gates["a"], which, LoadError(ErrorClass.DEPENDENCY, "no"))
        kit.gates["a"].may_load.set()
        kit.gates["a"].may_read.set()
        kit.engine.preload()
        await until(lambda: kit.engine.unready is None)
        assert (await kit.refused("x", model="a:1")).code is ErrorCode.MODEL_LOAD_FAILED
