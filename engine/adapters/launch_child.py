"""The first moments of every child process: join the control group, take the lock, become the program.

Run as `python -I -S launch_child.py LOCK CGROUP PROGRAM ARGUMENT…` (an empty CGROUP: none). It replaces itself, so the
process id stays, and the lock is held by the program and whatever inherits its descriptors until the last one ends;
that is how a `resume` knows that a killed engine's child still works. Standard library only; costs 15 ms.

Ends with 125 when the lock file is gone: the engine that started us died and another one has cleaned up after it.
"""

import fcntl
import os
import signal
import sys

ABANDONED = 125
NOT_STARTED = 127


def main(lock: str, cgroup: str, argv: list[str]) -> int:
    try:
        descriptor = os.open(lock, os.O_RDWR | os.O_APPEND)
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return ABANDONED
    if not os.fstat(descriptor).st_nlink:
        return ABANDONED
    if cgroup:
        with open(os.path.join(cgroup, "cgroup.procs"), "w") as procs:
            procs.write("0")
    # Which process holds it: the id may be used again one day, the start time with it may not.
    with open("/proc/self/stat") as stat:
        started = stat.read().rpartition(")")[2].split()[19]
    os.write(descriptor, f"pid={os.getpid()} {started}\n".encode())
    os.set_inheritable(descriptor, True)
    os.environ["RUNBOOK_CHILD_LOCK"] = lock
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # Python ignores it, and programs would inherit that
    try:
        os.execvp(argv[0], argv)  # noqa: S606 - that is its purpose
    except OSError as error:
        sys.stderr.write(f"{argv[0]}: {error.strerror}\n")
    return NOT_STARTED


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2], sys.argv[3:]))
