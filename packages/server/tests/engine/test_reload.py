"""The catalogue of a running engine changes."""

import msgspec

from gated_adapter import Kit, engine_of, gated_model, until
from sie_protocol.catalog import ModelConfig
from sie_protocol.errors import ErrorCode
from sie_server.adapters.base import LoadError
from sie_server.core.lifecycle import ErrorClass
from sie_server.engine.models import LoadPolicy


def model(kit: Kit, name: str, **options: object) -> ModelConfig:
    """A model of the kit, with further options of its only profile."""
    found = gated_model(name, kit.gates[name], kit.memory)
    profile = found.profiles["default"]
    changed = msgspec.structs.replace(profile, adapter_options={**profile.adapter_options, **options})
    return msgspec.structs.replace(found, profiles={"default": changed})


async def test_a_model_that_would_load_alike_keeps_its_weights_and_follows_its_new_options() -> None:
    async with engine_of("a") as kit:
        kit.gates["a"].open.set()
        await kit.load()
        kit.engine.adopt({"a": model(kit, "a", doc_template="two {text}")})
        assert kit.state() == "loaded"
        assert (await kit.encode("words")).rows[0]["dense"].values.tolist() == [2, 9]
        assert kit.gates["a"].loads == 1


async def test_a_changed_model_finishes_what_it_accepted_and_is_loaded_anew() -> None:
    async with engine_of("a") as kit:
        await kit.load()
        accepted = kit.send("first")
        await kit.entered()
        kit.engine.adopt({"a": model(kit, "a", pooling="cls")})
        problem = await kit.refused("second")
        assert (problem.code, problem.retry_after_s) == (ErrorCode.MODEL_LOADING, 1)
        kit.gates["a"].open.set()
        assert len((await accepted).rows) == 1
        await until(lambda: kit.state() == "loaded")
        assert (kit.gates["a"].loads, kit.gates["a"].unloaded) == (2, True)
        await kit.encode("third")


async def test_a_model_that_changes_while_it_loads_is_loaded_again_before_it_serves() -> None:
    async with engine_of("a") as kit:
        kit.gates["a"].open.set()
        await kit.refused("x")
        await until(lambda: kit.gates["a"].loads == 1)
        kit.engine.adopt({"a": model(kit, "a", pooling="cls")})
        kit.engine.adopt({"a": model(kit, "a", pooling="mean")})
        kit.gates["a"].may_load.set()
        await until(lambda: kit.gates["a"].loads == 2)
        await until(lambda: kit.state() == "loaded")
        assert kit.engine.lookup("a").slot.model == model(kit, "a", pooling="mean")


async def test_a_model_that_is_gone_is_not_found_and_leaves_the_memory() -> None:
    async with engine_of("a", "b") as kit:
        await kit.load("a")
        kit.gates["a"].size_bytes = 7
        accepted = kit.send("first")
        await kit.entered()
        kit.engine.adopt({"b": model(kit, "b")})
        assert (await kit.refused("x", model="a")).code is ErrorCode.MODEL_NOT_FOUND
        assert [each["name"] for each in kit.engine.info()] == ["b"]
        assert [each.name for each in kit.engine.statuses()] == ["a"]  # until it has answered
        kit.gates["a"].open.set()
        await accepted
        await until(lambda: not kit.engine.statuses())
        assert kit.gates["a"].unloaded


async def test_a_model_that_comes_back_while_it_leaves_is_served_again() -> None:
    async with engine_of("a") as kit:
        await kit.load()
        accepted = kit.send("first")
        await kit.entered()
        kit.engine.adopt({})
        kit.engine.adopt({"a": model(kit, "a")})
        kit.gates["a"].open.set()
        await accepted
        await until(lambda: kit.state() == "loaded")
        await kit.encode("second")


async def test_a_failure_for_good_ends_with_the_catalogue_entry_that_caused_it() -> None:
    async with engine_of("a") as kit:
        kit.gates["a"].load_error = LoadError(ErrorClass.GATED, "accept the licence")
        await kit.load()
        kit.engine.adopt({"a": model(kit, "a")})
        assert kit.state() == "failed"  # nothing has changed
        kit.gates["a"].load_error = None
        kit.engine.adopt({"a": model(kit, "a", pooling="cls")})
        assert kit.engine.info_of("a")["last_error"] is None
        await kit.load()
        assert kit.state() == "loaded"


async def test_a_new_model_can_be_asked_for_and_pins_follow_names() -> None:
    async with engine_of("a", "b", load_policy=LoadPolicy(pinned=("a",))) as kit:
        kit.engine.adopt({"b": model(kit, "b")})
        assert not kit.engine.lookup("b").slot.is_pinned
        kit.engine.adopt({"a": model(kit, "a"), "b": model(kit, "b")})
        assert kit.engine.lookup("a").slot.is_pinned
        await kit.load("a")
        assert kit.state("a") == "loaded"


async def test_readiness_waits_for_a_preload_that_changed_and_not_for_one_that_is_gone() -> None:
    async with engine_of("a", "b", load_policy=LoadPolicy(preload=("a", "b"))) as kit:
        kit.engine.preload()
        await until(lambda: kit.gates["a"].loads == kit.gates["b"].loads == 1)
        kit.engine.adopt({"a": model(kit, "a", pooling="cls")})
        kit.gates["b"].may_load.set()
        await until(lambda: kit.engine.unready == "loading a")
        kit.gates["a"].may_load.set()
        await until(lambda: kit.engine.unready is None)
        assert kit.gates["a"].loads == 2
