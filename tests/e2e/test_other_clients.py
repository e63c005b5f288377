"""OpenAI's and Cohere's published clients through a router to a worker."""

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from router_builders import L4
from router_fakes import eventually
from router_fakes import served as served_router
from served_worker import Process, process, write_catalog
from sie_router.settings import Settings
from warnings_of_others import ignoring

with ignoring():
    import cohere
    import openai

MODEL = "org/hash"


@pytest.fixture(scope="module")
def catalog(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("catalog")
    write_catalog(folder, {MODEL: {}})
    return folder


@pytest.fixture(scope="module")
def worker(catalog: Path) -> Iterator[Process]:
    folders = ["--models-dir", str(catalog / "models"), "--bundles-dir", str(catalog / "bundles")]
    with process(*folders, env={"SIE_MACHINE_PROFILE": "l4"}) as running:
        yield running


async def test_clients_of_other_services_wait_for_a_worker_and_get_their_answers(
    worker: Process, catalog: Path
) -> None:
    def ask(url: str) -> tuple[Any, Any, Any]:
        with openai.OpenAI(base_url=f"{url}/v1", api_key="any") as client:
            vectors = client.embeddings.create(model="DEFAULT:/Org/Hash", input=["a", "b"])
            assert [each.id for each in client.models.list()] == [client.models.retrieve(MODEL).id] == [MODEL]
            with pytest.raises(openai.BadRequestError) as refused:
                client.embeddings.create(model=MODEL, input=[])
        with cohere.ClientV2(api_key="any", base_url=url) as other:
            ranks = other.rerank(model=MODEL, query="a", documents=["b", "a"])
        return vectors, ranks, refused.value

    settings = Settings(
        workers=(worker.url,), groups=(L4,), models_dir=catalog / "models", bundles_dir=catalog / "bundles"
    )
    async with served_router(settings) as router:
        vectors, ranks, refused = await asyncio.to_thread(ask, router.url)
        await eventually(lambda: router.healthy() == 1)
    with worker.client() as http:
        expected = [each["dense"]["values"] for each in worker.encode(http, MODEL, "a", "b")["items"]]
    np.testing.assert_allclose([each.embedding for each in vectors.data], expected, atol=1e-6)
    assert vectors.model == MODEL
    assert ranks.results[0].index == 1
    assert (refused.param, refused.code) == ("input", "INVALID_INPUT")
