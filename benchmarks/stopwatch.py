"""Run one command and write down what it used: `stopwatch.py REPORT COMMAND...`.

It is a small process of its own because on Linux a child's peak memory begins with that of the
process that started it.
"""

import json
import os
import signal
import sys
import time
from pathlib import Path

_PATIENCE = 900


def main() -> int:
    """Write seconds, CPU seconds and peak bytes; exit as the command did."""
    report, *command = sys.argv[1:]
    started = time.monotonic()
    pid = os.posix_spawnp(command[0], command, os.environ)
    signal.signal(signal.SIGALRM, lambda *_: os.kill(pid, signal.SIGKILL))
    signal.alarm(_PATIENCE)
    _, status, used = os.wait4(pid, 0)
    seconds = time.monotonic() - started
    cpu = used.ru_utime + used.ru_stime
    usage = {"seconds": seconds, "cpu": cpu, "peak": used.ru_maxrss << 10}
    Path(report).write_text(json.dumps(usage), encoding="utf-8")
    return abs(os.waitstatus_to_exitcode(status))


if __name__ == "__main__":
    sys.exit(main())
