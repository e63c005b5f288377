"""Real models come and go under mixed traffic, in a process of its own: memory is measured."""

import json
import subprocess
import sys

import eviction_law


def test_no_answer_is_lost_or_wrong_and_memory_returns_while_a_model_is_unloaded_under_traffic() -> None:
    cycles = eviction_law.WARM_UP_CYCLES + 16
    command = [sys.executable, eviction_law.__file__, "--cycles", str(cycles)]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True)
    report = json.loads(done.stdout)
    assert report["cycles"] == cycles
    assert set(report["answers"]) == set(eviction_law.KINDS)
    assert report["repeated"].get("MODEL_LOADING", 0) > 0  # it was asked for while it was away
    assert report["loaded_bytes"] - report["first_bytes"] > report["model_bytes"] / 2
