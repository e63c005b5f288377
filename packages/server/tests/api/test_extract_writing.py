"""Extract requests to models that write: data, texts with places, questions, and what is refused."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from served_worker import Served, served, write_catalog
from sie_protocol.headers import JSON, MSGPACK
from tiny_donut import write_donut
from tiny_florence2 import florence_oracle, write_florence2
from tiny_vision import picture
from wire_answers import error_of, patiently

FLORENCE, CAPTIONS, VQA = "org/florence", "org/captions", "org/vqa"
PNG = picture(60, 60, 1)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    whole = tmp_path_factory.mktemp("writing")
    return {
        FLORENCE: write_florence2(whole / "florence"),
        VQA: write_donut(whole / "vqa", "<s_docvqa>", asks=True),
    }


@pytest.fixture
async def worker(tmp_path: Path, folders: dict[str, Path]) -> AsyncIterator[Served]:
    def model(adapter: str, folder: Path, reads: str, *, text: bool, **options: Any) -> dict[str, Any]:
        inputs = {"text": text, "image": True}
        tasks = {"extract": {"labels": "none", "instruction": reads}}
        own = {"max_new_tokens": 8, "num_beams": 1, **options}
        return {"adapter": adapter, "weights_path": str(folder), "inputs": inputs, "tasks": tasks, "options": own}

    models = {
        FLORENCE: model("florence2", folders[FLORENCE], "optional", text=True, task="<OD>"),
        CAPTIONS: model("florence2", folders[FLORENCE], "optional", text=False, task="<CAPTION>"),
        VQA: model("donut", folders[VQA], "required", text=True),
    }
    async with served(write_catalog(tmp_path, models)) as each:
        yield each


def image(**more: Any) -> dict[str, Any]:
    return {"images": [{"data": PNG}], **more}


async def send(worker: Served, model: str, items: list[Any], **params: Any) -> Any:
    body = msgspec.msgpack.encode({"items": items, "params": params})
    head = {"content-type": MSGPACK, "accept": JSON}
    return await patiently(lambda: worker.http.post(f"/v1/extract/{model}", content=body, headers=head))


async def extract(worker: Served, model: str, items: list[Any], **params: Any) -> Any:
    reply = await send(worker, model, items, **params)
    assert reply.status_code == 200, reply.text
    return reply.json()


async def test_what_a_model_writes_is_data_and_texts_without_a_place_have_none(
    worker: Served, folders: dict[str, Path]
) -> None:
    answer = await extract(worker, CAPTIONS, [image(), image(id="x")])
    oracle = florence_oracle(folders[FLORENCE])
    ids = oracle.ids(PNG, oracle.prompt("<CAPTION>"), max_new_tokens=8)
    caption = oracle.answer(oracle.tokenizer.decode(ids, skip_special_tokens=False), "<CAPTION>", (60, 60))
    for each, name in zip(answer["items"], ["item-0", "x"], strict=True):
        assert (each["id"], each["data"], each["objects"]) == (name, {"<CAPTION>": caption}, [])
        [entity] = each["entities"]
        assert 0 < entity.pop("score") < 1
        assert entity == {"text": caption, "label": "caption", "start": None, "end": None, "bbox": None}
    assert answer["usage"]["input_tokens"] == 2 * (5 + len(oracle.tokenizer.encode(oracle.prompt("<CAPTION>")).ids))


async def test_the_phases_of_a_request_fit_into_its_time_however_many_images_go_side_by_side(worker: Served) -> None:
    reply = await send(worker, CAPTIONS, [image()] * 12)
    phases = [float(reply.headers[f"x-{phase}-time"]) for phase in ("queue", "tokenization", "inference")]
    assert 0 < phases[2] <= sum(phases) <= float(reply.headers["x-total-time"])


async def test_a_request_chooses_its_task_and_every_item_may_have_a_question(worker: Served) -> None:
    options = {"task": "<CAPTION_TO_PHRASE_GROUNDING>", "num_beams": 2}
    items = [image(), image(text="a red cat"), image(text=" a red cat ")]
    found = (await extract(worker, FLORENCE, items, instruction="a red cat", options=options))["items"]
    assert [set(each["data"]) for each in found] == [{"<CAPTION_TO_PHRASE_GROUNDING>"}] * 3
    assert found[0]["data"] == found[1]["data"] == found[2]["data"]


async def test_a_question_that_is_missing_or_has_no_place_is_refused_in_its_place(worker: Served) -> None:
    items = [image(text="what is the total?"), image(), {"text": "what?"}, image(text="  ")]
    good, *bad = (await extract(worker, VQA, items))["items"]
    assert good["data"]["question"] == "what is the total?"
    says = [each["error"]["message"] for each in bad]
    ways = "as its text or for all items in params.instruction"
    assert says == [
        f"item 1 has no question, which model '{VQA}' needs; send it {ways}",
        f"item 2 has no images, which model '{VQA}' needs",
        says[0].replace("item 1", "item 3"),
    ]
    [refused] = (await extract(worker, CAPTIONS, [image(text="a cat")]))["items"]
    assert refused["error"]["message"].endswith("reads images only; say it in params.instruction")


async def test_a_question_that_is_too_long_is_refused_in_its_place(worker: Served) -> None:
    good, bad = (await extract(worker, VQA, [image(text="what?"), image(text="what is it? " * 50)]))["items"]
    assert good["data"]["question"] == "what?"
    assert "behind a prompt of" in bad["error"]["message"]
    assert bad["error"]["message"].startswith("item 1: ")


@pytest.mark.parametrize(
    ("params", "says"),
    [
        (
            {"options": {"max_new_tokens": 5000}},
            "options.max_new_tokens is 5000; expected a number of tokens, 1 to 4096",
        ),
        ({"options": {"max_new_tokens": 100}}, "the model can write 80 tokens behind a prompt of 1"),
        ({"options": {"num_beams": 9}}, "options.num_beams is 9; expected a number of beams, 1 to 8"),
        ({"options": {"task": "<TELL>"}}, "options.task is '<TELL>'; it knows: <OCR>"),
        ({"instruction": "a cat"}, "task <OD> reads nothing beside the image"),
        ({"labels": ["cat"]}, "reads no labels"),
        ({"output_schema": {}}, "cannot use output_schema"),
    ],
)
async def test_what_a_model_cannot_do_is_refused(worker: Served, params: dict[str, Any], says: str) -> None:
    error = error_of(await send(worker, FLORENCE, [image()], **params))
    assert error["code"] == "INVALID_INPUT"
    assert says in error["message"]
