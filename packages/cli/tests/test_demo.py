"""`sie demo` with the real model, its output going to a pipe."""

import signal
import subprocess

from running_up import SIE
from sie_cli.demo import QUERIES, sentences


def test_the_text_is_forty_different_sentences() -> None:
    texts = sentences()
    assert len(texts) == len(set(texts)) == 40
    assert all(text.endswith(".") for text in texts)


def test_the_demo_goes_from_nothing_to_neighbours_and_ends_with_nothing_running() -> None:
    done = subprocess.run([SIE, "demo"], capture_output=True, text=True, timeout=280, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    stations = (
        "PROVISIONING",
        "pool cpu: demand 1 > 0: 0 -> 1",
        "cpu-0: process",
        "cpu-0: ready",
        "result['dense'].shape == (384,)",
        "from the start of the worker process to the first vector",
        "Nearest sentences",
        "Most similar pairs",
        "everything is stopped",
    )
    places = [done.stdout.find(text) for text in stations]
    assert places == sorted(places)
    assert -1 not in places
    assert QUERIES[0] in done.stdout


def test_an_interrupted_demo_ends_quietly_with_the_status_of_an_interrupt() -> None:
    with subprocess.Popen([SIE, "demo"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as demo:
        assert demo.stdout is not None
        lines = []
        for line in demo.stdout:  # until the client waits and the worker starts
            lines.append(line)
            if "cpu-0: process" in line:
                break
        demo.send_signal(signal.SIGINT)
        rest = demo.stdout.read()
        assert demo.wait(60) == 130
    assert rest.endswith("everything is stopped\n")
    assert "Traceback" not in rest
