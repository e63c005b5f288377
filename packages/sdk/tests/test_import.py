import subprocess
import sys

# Of CPU time beyond Python itself, which a busy machine hardly changes; on an idle one the clock says the same.
LIMIT_S = 0.25
HEAVY = ("torch", "fastapi", "sie_router", "sie_server", "numpy", "httpx", "asyncio", "PIL", "websockets")
PROGRAM = """
import sys, time
began = time.process_time()
import sie_sdk
print(time.process_time() - began)
print(*sorted({name.partition(".")[0] for name in sys.modules} & set(sys.argv[1:])))
print(sie_sdk.__version__)
"""


def imported() -> tuple[float, str, str]:
    done = subprocess.run([sys.executable, "-c", PROGRAM, *HEAVY], capture_output=True, text=True, check=True)
    sdk_s, heavy, version = done.stdout.splitlines()
    return float(sdk_s), heavy, version


def test_importing_the_sdk_is_quick_and_brings_nothing_heavy() -> None:
    runs = [imported() for _ in range(5)]
    assert {heavy for _, heavy, _ in runs} == {""}  # numpy and httpx come with the first client and the first vector
    assert {version for *_, version in runs} == {"0.1.10"}
    assert min(sdk_s for sdk_s, *_ in runs) <= LIMIT_S, runs
