"""`sie encode`, `score` and `extract` against a real cluster: `sie up` with its router and workers.

docs/performance.md has the figures of the interrupted run in full size with a real model, and how to repeat it.
"""

import json
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from prometheus_client.parser import text_string_to_metric_families
from rich.console import Console

import sdk_answers as published
import sie_server
from local_cluster import LocalCluster, local_cluster
from real_lines import real_lines
from running_sie import AtTerminal, sie
from sdk_server import Stall, serving
from served_worker import write_catalog
from sie_cli.batch.progress import Progress
from sie_cli.settings import load
from sie_sdk import SIEClient, WaitEvent
from sie_server.adapters.registry import ADAPTERS

LINES = int(load().inherited.get("SIE_TEST_LINES", "800"))
CLUSTER = """
router: {retryAfterSeconds: 1}
workers: {pools: {cpu: {maxReplicas: 1}}}
autoscaling: {pollingInterval: 0.2, syncPeriod: 1, cooldownPeriod: 600, scaleDownStabilization: 1}
"""
FAST, SLOW = "test/fast", "test/slow"
REAL = "sentence-transformers/all-MiniLM-L6-v2"
MODEL = load().inherited.get("SIE_TEST_MODEL", SLOW)
TWIN = FAST if MODEL == SLOW else MODEL  # gives the same vectors
BATCH_S = 0.2  # a run that is to be interrupted must not be over before the signal comes, also on a busy machine
DIMS = 16
ROUNDING = 1e-5  # a real model's vectors depend in their last digits on the texts beside them
BOUND_S = 60 + LINES / 50


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalCluster]:
    folder = tmp_path_factory.mktemp("cluster")
    fields = {"tasks": {"encode": {"dense": {"dim": DIMS}}}}
    adapters = {**ADAPTERS, "dense": ""}
    write_catalog(folder / "catalog", {FAST: fields, SLOW: {**fields, "options": {"batch_s": BATCH_S}}}, adapters)
    packaged = Path(sie_server.__path__[0]) / "catalog/models" / f"{REAL.replace('/', '__')}.yaml"
    shutil.copy(packaged, folder / "catalog/models")
    env = {
        name: str(folder / "catalog" / part)
        for name, part in (("SIE_MODELS_DIR", "models"), ("SIE_BUNDLES_DIR", "bundles"))
    }
    with local_cluster(folder, CLUSTER, {**env, "SIE_MAX_ITEM_TEXT_CHARS": "100000"}) as running:
        yield running


@pytest.fixture
def env(cluster: LocalCluster) -> dict[str, str]:
    return {"SIE_BASE_URL": cluster.url}


def answered(cluster: LocalCluster) -> float:
    """Encode requests that the router has answered with vectors."""
    families = text_string_to_metric_families(httpx.get(f"{cluster.url}/metrics").text)
    samples = (sample for family in families for sample in family.samples)
    return sum(
        each.value
        for each in samples
        if each.name == "sie_router_requests_total"
        and (each.labels["endpoint"], each.labels["status"]) == ("encode", "200")
    )


def test_a_long_run_shows_progress_survives_a_worker_kill_and_resumes_after_ctrl_c_without_redoing_or_losing_a_line(
    cluster: LocalCluster, env: dict[str, str], tmp_path: Path
) -> None:
    lines, batch = real_lines(LINES), 20
    given, output = tmp_path / "big.jsonl", tmp_path / "out.parquet"
    given.write_text("".join(json.dumps({"key": f"k{n}", "body": line}) + "\n" for n, line in enumerate(lines)))
    command = [
        "encode",
        str(given),
        *("-m", MODEL, "--gpu", "cpu", "--field", "body", "--id-field", "key", "-o", str(output)),
        *("--batch-size", str(batch), "--concurrency", "2"),
    ]
    with AtTerminal(*command, env=env, bound_s=BOUND_S) as first:
        first.until(lambda: max(first.counts, default=0) > LINES // 10)
        cluster.kill_worker(cluster.workers("cpu")[0])
        seen = max(first.counts)
        first.until(lambda: max(first.counts) > max(seen + 5 * batch, LINES // 3))
        assert first.end(signal.SIGINT) == 130, first.shown[-800:]
    assert "records; the same command goes on from there" in first.shown
    assert "/s" in first.shown
    assert not output.exists()

    before = answered(cluster)
    with AtTerminal(*command, "--json", env=env, bound_s=BOUND_S) as second:
        assert second.end() == 0, second.shown
        assert second.process.stdout is not None
        summary = json.loads(second.process.stdout.read())
    print(f"{LINES} lines through {MODEL}: {summary}")  # noqa: T201 - for who runs it in full size
    assert LINES // 3 < summary["resumed"] < LINES
    assert (summary["records"], summary["errors"]) == (LINES, 0)
    assert answered(cluster) - before == -(-(LINES - summary["resumed"]) // batch)  # nothing was sent again

    table = pq.read_table(output)
    assert table["id"].to_pylist() == [f"k{n}" for n in range(LINES)]
    vectors = np.stack(table["dense"].to_numpy(zero_copy_only=False))
    with SIEClient(cluster.url) as client:
        for at in range(0, LINES, 1000):
            wanted = client.encode(TWIN, [{"text": line} for line in lines[at : at + 1000]], gpu="cpu")
            np.testing.assert_allclose(vectors[at : at + 1000], [each["dense"] for each in wanted], atol=ROUNDING)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["big.jsonl", "out.parquet"]


def test_a_killed_run_goes_on_where_its_journal_ends(env: dict[str, str], tmp_path: Path) -> None:
    given, output = tmp_path / "in.txt", tmp_path / "out.jsonl"
    given.write_text("".join(f"line {n}\n" for n in range(400)))
    command = ["encode", str(given), "-m", SLOW, "-o", str(output), "--batch-size", "10", "-c", "2"]
    with AtTerminal(*command, env=env, bound_s=BOUND_S) as first:
        first.until(lambda: max(first.counts, default=0) >= 50)
        assert first.end(signal.SIGKILL) == -signal.SIGKILL
    done = sie(*command, "--json", env=env)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["resumed"] >= 50
    rows = [json.loads(line) for line in output.read_text().splitlines()]
    assert [row["id"] for row in rows] == [str(n) for n in range(1, 401)]


@pytest.mark.parametrize("output", [["-o", "out.jsonl"], []], ids=["file", "stdout"])
def test_two_interrupts_end_a_run_whose_request_hangs_and_leave_no_output(output: list[str], tmp_path: Path) -> None:
    given = [str(tmp_path / part) if part == "out.jsonl" else part for part in output]
    with serving(published.VECTOR, Stall()) as server:
        command = ["encode", "one", "two", "-m", FAST, "--batch-size", "1", "--concurrency", "1", *given]
        with AtTerminal(*command, env={"SIE_BASE_URL": server.url}) as run:
            run.until(lambda: len(server.seen) == 2)
            run.process.send_signal(signal.SIGINT)
            assert run.end(signal.SIGINT) == 130, run.shown
    assert "stopping: what is under way has 10 s" in run.shown
    assert "interrupted after 1 records" in run.shown
    assert [path.name for path in tmp_path.iterdir()] == ["out.jsonl.partial"] * len(output[1:])


def test_another_input_is_not_mixed_into_what_was_begun(env: dict[str, str], tmp_path: Path) -> None:
    given, output = tmp_path / "in.txt", tmp_path / "out.jsonl"
    given.write_text("".join(f"line {n}\n" for n in range(400)))
    command = ["encode", str(given), "-m", SLOW, "-o", str(output), "--batch-size", "10", "-c", "2"]
    with AtTerminal(*command, env=env, bound_s=BOUND_S) as first:
        first.until(lambda: max(first.counts, default=0) >= 20)
        assert first.end(signal.SIGTERM) == 130
    given.write_text("".join(f"other {n}\n" for n in range(400)))
    refused = sie(*command, env=env)
    assert refused.returncode == 1
    assert "records are not those" in refused.stderr
    model = [FAST if part == SLOW else part for part in command]
    refused = sie(*model, env=env)
    assert f"a run with model '{SLOW}', not '{FAST}'; --overwrite begins anew" in refused.stderr
    assert sie(*model, "--overwrite", env=env).returncode == 0
    again = sie(*model, env=env)
    assert (again.returncode, again.stderr) == (1, f"sie: {output} exists already; --overwrite replaces it\n")


def test_texts_of_arguments_and_of_stdin_come_out_as_json_lines_in_order(env: dict[str, str]) -> None:
    by_argument = sie("encode", "one", "two", "-m", FAST, "--dtype", "int8", env=env)
    rows = [json.loads(line) for line in by_argument.stdout.splitlines()]
    assert [row["id"] for row in rows] == ["1", "2"]
    assert max(map(abs, rows[0]["dense"])) == 127
    by_stdin = sie("encode", "-m", FAST, "--dtype", "int8", given="one\ntwo\n", env=env)
    assert by_stdin.stdout == by_argument.stdout
    assert by_stdin.stderr == ""  # no bar in a pipe


def test_who_types_texts_is_told_how_to_end_them(env: dict[str, str]) -> None:
    with AtTerminal("encode", "-m", FAST, env=env, whole=True) as typed:
        typed.until(lambda: "Ctrl-D ends them" in typed.shown)
        typed.press("one\n")
        typed.press("\x04")
        assert typed.end() == 0
    assert '{"id":"1","dense":[' in typed.shown


def test_parquet_goes_in_and_npz_comes_out(env: dict[str, str], tmp_path: Path) -> None:
    pq.write_table(pa.table({"t": ["a", "b", "c"], "k": [7, 8, 9]}), tmp_path / "in.parquet")
    done = sie("encode", str(tmp_path / "in.parquet"), "--field", "t", "--id-field", "k", "-m", FAST,
               "-o", str(tmp_path / "out.npz"), env=env)  # fmt: skip
    assert done.returncode == 0, done.stderr
    with np.load(tmp_path / "out.npz") as found:
        assert found["ids"].tolist() == ["7", "8", "9"]
        assert found["dense"].shape == (3, DIMS)


def test_refused_records_are_set_aside_and_all_others_done(env: dict[str, str], tmp_path: Path) -> None:
    texts = ["fine"] * 50
    texts[17] = texts[40] = "word " * 40_000  # beyond what the worker reads
    given, output = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    lines = [json.dumps({"text": text}) for text in texts]
    given.write_text("\n".join(lines))
    stopped = sie("encode", str(given), "-m", FAST, "-o", str(output), env=env)
    assert stopped.returncode == 1
    assert "record 18: " in stopped.stderr
    assert "--keep-going" in stopped.stderr
    given.write_text("\n".join([*lines, "{broken", '{"txt": "no text"}']))
    done = sie("encode", str(given), "-m", FAST, "-o", str(output), "-k", env=env)
    assert done.returncode == 3, done.stderr
    assert "48 records to " in done.stderr
    assert ", 4 refused: see " in done.stderr
    refused = [json.loads(line) for line in (tmp_path / "out.jsonl.errors.jsonl").read_text().splitlines()]
    assert [(row["id"], row["error"]["code"]) for row in refused] == [
        ("18", "INPUT_TOO_LONG"),
        ("41", "INPUT_TOO_LONG"),
        ("51", "UNREADABLE"),
        ("52", "UNREADABLE"),
    ]
    ids = [json.loads(line)["id"] for line in output.read_text().splitlines()]
    assert ids == [str(n) for n in range(1, 51) if n not in (18, 41)]


def test_there_is_no_output_before_the_refused_records_are_set_aside(env: dict[str, str], tmp_path: Path) -> None:
    given, output, errors = tmp_path / "in.txt", tmp_path / "out.jsonl", tmp_path / "refused.jsonl"
    given.write_text("short\n" + "x" * 2_200_000)
    errors.mkdir()
    command = ("encode", str(given), "-m", FAST, "-o", str(output), "--errors", str(errors))
    assert sie(*command, env=env).returncode == 1
    assert not output.exists()
    errors.rmdir()
    assert sie(*command, env=env).returncode == 3
    assert [json.loads(line)["id"] for line in output.read_text().splitlines()] == ["1"]
    assert [json.loads(line)["id"] for line in errors.read_text().splitlines()] == ["2"]


def test_score_keeps_the_order_or_ranks_the_best(env: dict[str, str]) -> None:
    texts = [f"text {n}" for n in range(30)]
    scored = sie("score", "text 7", *texts, "-m", FAST, "--batch-size", "4", env=env)
    rows = [json.loads(line) for line in scored.stdout.splitlines()]
    assert [row["id"] for row in rows] == [str(n) for n in range(1, 31)]
    best = sie("score", "text 7", *texts, "-m", FAST, "--top-k", "3", "--batch-size", "4", env=env)
    ranked = [json.loads(line) for line in best.stdout.splitlines()]
    assert [row["rank"] for row in ranked] == [0, 1, 2]
    assert ranked[0]["id"] == "8"
    assert [row["score"] for row in ranked] == sorted((row["score"] for row in rows), reverse=True)[:3]


def test_a_model_without_the_task_is_one_line_and_status_1(env: dict[str, str]) -> None:
    done = sie("extract", "Ada Lovelace", "-m", FAST, "--labels", "person,place", env=env)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("sie: ")
    assert len(done.stderr.splitlines()) == 1


def test_a_wrong_option_is_a_usage_error_or_one_line(env: dict[str, str]) -> None:
    assert sie("encode", "x", env=env).returncode == 2
    unknown = sie("encode", "x", "-m", FAST, "--dtype", "float7", env=env)
    assert (unknown.returncode, "ubinary" in unknown.stderr) == (2, True)
    wrong = sie("encode", "x", "-m", FAST, "--option", "nothing", env=env)
    assert (wrong.returncode, wrong.stderr) == (2, "sie: --option 'nothing' is not like key=value\n")


def test_where_nobody_listens_a_run_ends_at_once_and_says_so() -> None:
    for command in (["encode", "a text"], ["score", "a query", "a text"], ["extract", "a text"]):
        done = sie("--url", "http://127.0.0.1:1", *command, "-m", FAST)
        assert (done.returncode, done.stdout) == (1, "")
        assert done.stderr.startswith("sie: no connection to 127.0.0.1:1: ")
        assert len(done.stderr.splitlines()) == 1


def test_a_router_that_is_gone_for_a_while_is_waited_for_once_it_was_there() -> None:
    progress = Progress(Console(stderr=True), None)
    gone = WaitEvent("CONNECT_FAILED", "no connection to x", 1.0, 1, 0.0)
    with pytest.raises(RuntimeError, match="no connection to x; sie up starts a cluster here"):
        progress.waiting(gone)
    progress.waiting(WaitEvent("PROVISIONING", "soon", 1.0, 1, 0.0))
    progress.waiting(gone)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("no.jsonl",), "no file 'no.jsonl': there is none in ."),
        (("a text", "-o", "none/out.jsonl"), "--output none/out.jsonl: there is no folder 'none'; make it first"),
        ((".",), "'.' is a folder; name one file in it"),
    ],
)
def test_what_is_not_there_is_a_usage_error_that_names_it_as_it_was_typed(
    arguments: tuple[str, ...], says: str
) -> None:
    done = sie("encode", *arguments, "-m", FAST, "--url", "http://127.0.0.1:1")
    assert (done.returncode, done.stdout) == (2, "")
    assert says in done.stderr
    assert "partial" not in done.stderr


def test_a_word_like_a_path_is_embedded_with_a_warning_and_an_empty_input_is_told() -> None:
    with serving(published.VECTOR) as server:
        done = sie("encode", "Makefile.md", "-m", FAST, env={"SIE_BASE_URL": server.url})
        assert done.returncode == 0, done.stderr
        assert "there is no file 'Makefile.md', so it is taken as a text" in done.stderr
        empty = sie("encode", "-m", FAST, env={"SIE_BASE_URL": server.url})
    assert (empty.returncode, empty.stdout) == (0, "")
    assert "no records: stdin has no text" in empty.stderr


@pytest.mark.parametrize(
    ("details", "says", "has_hint"),
    [
        ({"param": "params.labels"}, "wrong: --labels person,place", False),
        ({}, "wrong", False),
        ({"item": 0}, "wrong", True),
    ],
)
def test_keep_going_is_advised_where_a_record_is_at_fault_and_not_the_command(
    details: dict[str, object], says: str, *, has_hint: bool
) -> None:
    error = {"code": "INVALID_INPUT", "message": "wrong", **details}
    with serving(published.said(400, {"error": error})) as server:
        done = sie("extract", "a text", "-m", FAST, env={"SIE_BASE_URL": server.url})
    assert done.returncode == 1
    assert says in done.stderr
    assert ("--keep-going" in done.stderr) == has_hint
