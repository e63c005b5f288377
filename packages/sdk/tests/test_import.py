import subprocess
import sys

# Of CPU time beyond Python itself, which a busy machine hardly changes; on an idle one the clock says the same.
LIMIT_S = 0.25
STARTS = 15  # of Python itself, which take less than the limit where a machine is not slow
HEAVY = ("torch", "fastapi", "sie_router", "sie_server", "numpy", "httpx", "asyncio", "PIL", "websockets")
PROGRAM = """
import sys, time
began = time.process_time()
import sie_sdk
print(began, time.process_time() - began)
print(*sorted({name.partition(".")[0] for name in sys.modules} & set(sys.argv[1:])))
print(sie_sdk.__version__)
"""


def imported() -> tuple[float, float, str, str]:
    """CPU seconds of Python's own start and of the import, the heavy packages that came with it, the version."""
    done = subprocess.run([sys.executable, "-c", PROGRAM, *HEAVY], capture_output=True, text=True, check=True)
    seconds, heavy, version = done.stdout.splitlines()
    python_s, sdk_s = map(float, seconds.split())
    return python_s, sdk_s, heavy, version


def test_importing_the_sdk_is_quick_and_brings_nothing_heavy() -> None:
    runs = [imported() for _ in range(5)]
    assert {heavy for *_, heavy, _ in runs} == {""}  # numpy and httpx come with the first client and the first vector
    assert {version for *_, version in runs} == {"0.1.10"}
    python_s, sdk_s = (min(times) for times in list(zip(*runs, strict=True))[:2])
    assert sdk_s <= max(LIMIT_S, STARTS * python_s), runs
