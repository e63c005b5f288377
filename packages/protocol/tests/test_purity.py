import subprocess
import sys


def test_everything_but_arrays_imports_without_numpy_sockets_or_an_event_loop() -> None:
    program = (
        "import sys\n"
        "from sie_protocol import catalog, codec, errors, hashing, headers, items, pools, profiles, status, target\n"
        "from sie_protocol import log_lines, versions\n"
        "print(*(name for name in ('numpy', 'asyncio', 'socket', 'httpx', 'torch') if name in sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == ""
