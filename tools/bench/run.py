"""`make bench`: the worker beside sentence-transformers, then the router beside other proxies. Each prints a table."""

import subprocess
import sys
from pathlib import Path

for script in ("worker.py", "router.py"):
    subprocess.run([sys.executable, Path(__file__).with_name(script)], check=True)
