"""Becomes another program that cannot outlive its parent: `python child.py PARENT_PID PROGRAM ARGUMENT...`.

On Linux the kernel is asked to kill this process when the parent ends, however it ends; the request survives `exec`.
Elsewhere only an orderly end of the parent stops it. Runs as a plain file with the standard library only, because it
stands in front of every process of the cluster and its start counts.
"""

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1
ORPHANED = 70  # exit status: the parent was gone before the program could start


def main(arguments: list[str]) -> None:
    """Tie this process to its parent, then become the program."""
    parent, program = int(arguments[0]), arguments[1:]
    if sys.platform == "linux":
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0) != 0:
            sys.exit(f"prctl: {os.strerror(ctypes.get_errno())}")
    if os.getppid() != parent:  # it may have ended before the request was made
        sys.exit(ORPHANED)
    os.execv(program[0], program)  # noqa: S606 - no shell is wanted


if __name__ == "__main__":
    main(sys.argv[1:])
