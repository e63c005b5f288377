import subprocess
import sys

LIMIT_S = 0.25
# On a busy machine everything takes longer; numpy, which the SDK needs, is then the measure: about half of the whole.
LIMIT_IN_NUMPYS = 3.0
PROGRAM = """
import sys, time
began = time.perf_counter()
import numpy
numpy_s = time.perf_counter() - began
import sie_sdk
print(numpy_s)
print(time.perf_counter() - began)
print(*sorted({name.partition(".")[0] for name in sys.modules} & {"torch", "fastapi", "sie_router", "sie_server"}))
print(sie_sdk.__version__)
"""


def imported() -> tuple[float, float, str, str]:
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True)
    numpy_s, sdk_s, heavy, version = done.stdout.splitlines()
    return float(numpy_s), float(sdk_s), heavy, version


def test_importing_the_sdk_is_quick_and_brings_no_server() -> None:
    runs = [imported() for _ in range(5)]
    assert {heavy for *_, heavy, _ in runs} == {""}
    assert {version for *_, version in runs} == {"0.1.10"}
    assert any(sdk_s <= max(LIMIT_S, LIMIT_IN_NUMPYS * numpy_s) for numpy_s, sdk_s, *_ in runs), runs
