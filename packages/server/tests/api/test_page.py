import re
from pathlib import Path

from served_worker import served, write_catalog
from sie_protocol.status import GpuStatus, ModelStatus, WorkerStatus
from sie_server.api.page import render


async def test_a_browser_sees_what_the_worker_is_and_holds(tmp_path: Path) -> None:
    profiles = {
        "default": {"adapter": "hash"},
        "other": {"extends": "default", "adapter_options": {"doc_template": "x {text}"}},
    }
    async with served(write_catalog(tmp_path, {"org/m": {"profiles": profiles}}), machine_profile="l4") as worker:
        first = await worker.http.get("/")
        assert (first.status_code, first.headers["content-type"]) == (200, "text/html; charset=utf-8")
        assert "none yet" in first.text
        await worker.encode("org/m", "x")
        page = (await worker.http.get("/")).text
        assert "<td>org/m</td><td>org/m:other</td><td>loaded</td><td>0</td>" in page
        assert "<td>l4</td>" in page
        assert "<td>ready</td>" in page
        for path in re.findall(r'href="([^"]*)"', page):
            assert (await worker.http.get(path)).status_code == 200
        assert (await worker.http.head("/")).status_code == 200
        worker.worker.engine.drain()
        assert "<td>draining</td>" in (await worker.http.get("/")).text


def test_names_are_shown_and_never_interpreted() -> None:
    evil = "<script>alert('x')</script>"
    frame = WorkerStatus(
        name=evil,
        machine_profile=evil,
        pool_name=evil,
        bundle=evil,
        version=evil,
        models=(ModelStatus(name=evil, aliases=(evil,), state=evil, queue_depth=3, memory_bytes=3 << 20),),
        gpus=(GpuStatus(device=evil, name=evil, memory_used_bytes=1 << 30, memory_total_bytes=2 << 30),),
    )
    page = render(frame)
    assert "<script" not in page
    assert page.count("&lt;script&gt;") == 10
    assert "1,024 MiB of 2,048 MiB" in page
    assert "3 MiB" in page


def test_the_page_needs_nothing_from_elsewhere() -> None:
    page = render(WorkerStatus())
    assert not re.findall(r"(?:src|url|import|http)[=(:\s]", page)
    assert all(path.startswith("/") for path in re.findall(r'href="([^"]*)"', page))
