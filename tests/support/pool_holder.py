"""A client of the SDK in a process of its own, for tests that kill it."""

import subprocess
import sys
from typing import Final

POOL: Final = "killed"
_PROGRAM: Final = f"""
import sys, threading
from sie_sdk import SIEClient
client = SIEClient(sys.argv[1])
client.create_pool("{POOL}", {{"l4": 1}})
print("made", flush=True)
threading.Event().wait()
"""


def pool_holder(url: str) -> subprocess.Popen[bytes]:
    """Started, with its pool made; it keeps the pool until it ends."""
    client = subprocess.Popen([sys.executable, "-c", _PROGRAM, url], stdout=subprocess.PIPE)
    assert client.stdout is not None
    assert client.stdout.readline() == b"made\n"
    client.stdout.close()
    return client
