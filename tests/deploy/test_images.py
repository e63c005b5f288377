"""The Dockerfiles keep the rules of a small and safe image."""

import json
import re
from pathlib import Path
from typing import Final

import pytest
import yaml

from chart_render import SOURCE, Chart, container, only
from sie_protocol.versions import VERSION

ROOT: Final = Path(__file__).resolve().parents[2]
FILES: Final = sorted((ROOT / "deploy/docker").glob("*.Dockerfile"))
LABELS: Final = {"title", "description", "version", "revision", "licenses"}
Instruction = tuple[str, str]


def instructions(file: Path) -> list[Instruction]:
    """Keyword and arguments, continued lines joined, comments dropped."""
    lines = [line for line in file.read_text().splitlines() if not line.startswith("#")]
    text = re.sub(r"\\\n\s*", "", "\n".join(lines))
    return [(word, rest) for word, _, rest in (line.partition(" ") for line in text.splitlines() if line)]


def stages(file: Path) -> dict[str, list[Instruction]]:
    """The instructions of each stage, those of the stage it stands on first; by name, the unnamed last as `final`."""
    found: dict[str, list[Instruction]] = {}
    for word, rest in instructions(file):
        if word == "FROM":
            base, _, name = rest.partition(" AS ")
            current = found[name or "final"] = [*found.get(base, []), (word, base)]
        elif found:
            current.append((word, rest))
    return found


@pytest.fixture(params=FILES, ids=lambda file: file.stem)
def file(request: pytest.FixtureRequest) -> Path:
    return Path(request.param)


def shipped(file: Path) -> list[list[Instruction]]:
    return [each for name, each in stages(file).items() if name != "build"]


def test_there_are_two_programs_and_two_platforms_of_workers() -> None:
    assert [file.stem for file in FILES] == ["router", "worker"]
    assert set(stages(FILES[1])) == {"build", "cpu", "cuda"}


def test_every_base_is_an_argument_that_takes_a_digest(file: Path) -> None:
    own = set(stages(file))
    bases = {rest for word, stage in stages(file).items() for rest in [dict(stage)["FROM"]] if word != "cuda"}
    assert bases <= {"${PYTHON_IMAGE}"} | own
    default = next(rest for word, rest in instructions(file) if word == "ARG")
    assert re.fullmatch(r"PYTHON_IMAGE=[\w.-]+:[\w.-]+", default)  # no registry, and never without a version


def test_the_user_is_a_number_and_not_root(file: Path) -> None:
    for stage in shipped(file):
        user = dict(stage)["USER"]
        assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", user)


def test_nothing_is_fetched_but_by_pip_and_nothing_is_built_at_the_end(file: Path) -> None:
    assert "ADD" not in dict(instructions(file))
    assert not re.search(r"https?://(?!127\.0\.0\.1)|curl|wget|apt", file.read_text())
    for stage in shipped(file):
        assert "RUN" not in dict(stage)
        copied = [rest for word, rest in stage if word == "COPY"]
        assert all(rest.startswith("--from=build ") for rest in copied)


def test_versions_are_those_that_are_tested(file: Path) -> None:
    runs = [rest for word, rest in instructions(file) if word == "RUN"]
    for install in (part for rest in runs for part in rest.split("&&") if "pip install" in part):
        assert "-c constraints.txt" in install
        assert "--no-cache-dir" in install


def test_it_says_what_it_is_and_how_it_is(file: Path) -> None:
    for stage in shipped(file):
        said = dict(stage)
        assert {name for name in LABELS if f"org.opencontainers.image.{name}=" in said["LABEL"]} == LABELS
        assert "/healthz" in said["HEALTHCHECK"]
        assert json.loads(said["ENTRYPOINT"])[0].startswith("sie-")
        assert f"ARG VERSION={VERSION}" in file.read_text()


def test_what_is_copied_exists_and_is_not_ignored(file: Path) -> None:
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    assert ignored[1] == "*"
    for rest in (rest for word, rest in instructions(file) if word == "COPY" and "--from" not in rest):
        source = rest.split()[0]
        assert (ROOT / source).exists()
        assert f"!{source.split('/')[0]}" in ignored
        assert not {source, *map(str, Path(source).parents)} & set(ignored)


def test_images_and_chart_agree(chart: Chart) -> None:
    chart_file = yaml.safe_load((SOURCE / "Chart.yaml").read_text())
    assert (chart_file["version"], chart_file["appVersion"]) == (VERSION, f"v{VERSION}")
    objects = chart.render()
    for kind, file in (("Deployment", FILES[0]), ("StatefulSet", FILES[1])):
        final = dict(shipped(file)[0])
        own = container(only(objects, kind))
        assert own["args"][0] == "serve"
        assert json.loads(final["ENTRYPOINT"])[0] == own["image"].split(":")[0]
        assert own["ports"][0]["containerPort"] == int(final["EXPOSE"])
