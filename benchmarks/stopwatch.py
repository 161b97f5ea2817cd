"""Run one command and write down what it used: `stopwatch.py REPORT COMMAND...`.

It is a small process of its own because on Linux a child's peak memory begins with that of the
process that started it, and because a process's `/proc/PID/io` holds that of the children that it
has waited for.
"""

import json
import os
import signal
import sys
import time
from pathlib import Path

_PATIENCE = 900


def main() -> int:
    """Write seconds, CPU seconds, peak bytes and bytes written; exit as the command did."""
    report, *command = sys.argv[1:]
    started = time.monotonic()
    pid = os.posix_spawnp(command[0], command, os.environ)
    signal.signal(signal.SIGALRM, lambda *_: os.kill(pid, signal.SIGKILL))
    signal.alarm(_PATIENCE)
    _, status, used = os.wait4(pid, 0)
    seconds = time.monotonic() - started
    cpu = used.ru_utime + used.ru_stime
    usage = {"seconds": seconds, "cpu": cpu, "peak": used.ru_maxrss << 10, "written": _written()}
    document = {"started": started, "usage": usage}
    Path(report).write_text(json.dumps(document), encoding="utf-8")
    return abs(os.waitstatus_to_exitcode(status))


def _written() -> int | None:
    """Bytes for disks, of this process (which is none) and all that it has waited for."""
    try:
        lines = Path("/proc/self/io").read_text(encoding="utf-8").splitlines()
    except OSError:
        return None
    return next(int(line.split()[1]) for line in lines if line.startswith("write_bytes"))


if __name__ == "__main__":
    sys.exit(main())
