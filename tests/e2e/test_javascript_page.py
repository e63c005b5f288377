"""The block of docs/javascript.md that needs no package runs as it is, against a cluster that starts at zero."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from local_cluster import local_cluster

PAGE = Path(__file__).parents[2] / "docs/javascript.md"
BLOCKS = re.findall(r"^```js run\n(.*?)^```", PAGE.read_text(), re.MULTILINE | re.DOTALL)
CLUSTER = "{router: {retryAfterSeconds: 1}, workers: {pools: {l4: {}}}, autoscaling: {pollingInterval: 1}}"
NODE = shutil.which("node")


@pytest.mark.skipif(NODE is None, reason="needs Node.js, which nothing else here does")
@pytest.mark.timeout(300)
def test_the_blocks_without_packages_run(tmp_path: Path) -> None:
    assert len(BLOCKS) == 1
    script = tmp_path / "page.mjs"
    with local_cluster(tmp_path, CLUSTER) as cluster:
        for block in BLOCKS:
            script.write_text(block.replace("http://localhost:8080", cluster.url))
            done = subprocess.run([str(NODE), str(script)], capture_output=True, text=True, check=False, timeout=200)
            assert (done.returncode, done.stdout) == (0, "384\n"), done.stderr
