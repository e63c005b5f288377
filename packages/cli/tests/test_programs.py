from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from sie_cli.clusterfile import Pool
from sie_cli.programs import Executables, router_program, share_threads, worker_program

L4 = Pool("fast", "l4", "default", 0, 2)
SPOT = Pool("spot", "l4", "small", 0, 2)
CPU = Pool("cpu", "cpu", "default", 0, 2)


def test_commands_lie_beside_the_interpreter() -> None:
    assert Executables.beside("/x/bin/python").router == ("/x/bin/sie-router",)


def test_a_router_gets_every_worker_address_every_group_and_each_profile_once() -> None:
    program = router_program(
        ("sie-router",),
        8080,
        workers=["http://a", "http://b"],
        pools=[L4, SPOT, CPU],
        retry_after_s=1,
        catalog=Path("/c"),
        inherited={"HOME": "/h"},
    )
    line = " ".join(program.argv)
    assert line.startswith("sie-router serve --host 127.0.0.1 --port 8080 --retry-after-s 1")
    assert "--worker http://a --worker http://b" in line
    assert "--group l4:default --group l4:small --group cpu:default" in line
    assert line.endswith("--models-dir /c/models --bundles-dir /c/bundles")
    assert program.env["SIE_ROUTER_CONFIGURED_GPUS"] == "l4,cpu"
    assert program.env["HOME"] == "/h"


def test_a_router_without_packaged_catalogue_leaves_the_choice_to_the_environment() -> None:
    program = router_program(
        ("sie-router",), 1, workers=[], pools=[L4], retry_after_s=1, catalog=None, inherited={"SIE_MODELS_DIR": "/m"}
    )
    assert "--models-dir" not in program.argv
    assert program.env["SIE_MODELS_DIR"] == "/m"


def test_a_worker_is_named_like_its_pod_and_its_identity_beats_the_callers_environment() -> None:
    program = worker_program(("sie-server",), 9, SPOT, "spot-1", {"SIE_BUNDLE": "other", "HOME": "/h"})
    assert program.argv == ("sie-server", "serve", "--host", "127.0.0.1", "--port", "9")
    assert program.env == {"SIE_BUNDLE": "small", "SIE_MACHINE_PROFILE": "l4", "POD_NAME": "spot-1", "HOME": "/h"}


def test_a_worker_alone_keeps_its_own_choice_of_threads() -> None:
    assert share_threads({"A": "1"}, cores=8, workers=1) == {"A": "1"}


def test_the_users_own_number_of_threads_wins() -> None:
    assert share_threads({"OMP_NUM_THREADS": "5"}, cores=8, workers=4) == {"OMP_NUM_THREADS": "5"}


@given(st.integers(1, 128), st.integers(2, 64))
def test_several_workers_never_have_more_threads_than_cores_or_one_each(cores: int, workers: int) -> None:
    threads = int(share_threads({}, cores=cores, workers=workers)["OMP_NUM_THREADS"])
    assert threads >= 1
    assert threads * workers <= max(cores, workers)
