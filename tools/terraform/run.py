"""`run.py ARGUMENTS...`: Terraform on a module as the tests call it, for example `run.py test` in its folder."""

import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from terraform import engine


def main() -> int:
    """Prepare the folder where we stand, then run the command."""
    with tempfile.TemporaryDirectory() as folder:
        terraform = engine.prepared(Path(folder))
        terraform.init(Path.cwd())
        done = terraform.run(Path.cwd(), *sys.argv[1:])
    print(done.stdout, done.stderr, sep="")
    return done.returncode


if __name__ == "__main__":
    sys.exit(main())
