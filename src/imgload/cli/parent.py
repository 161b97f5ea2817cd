"""Heeding the program that runs a command, where that may not be able to say so."""

from __future__ import annotations

import os
import signal
import threading
import time

_POLL_SECONDS = 0.1


def heed_parent() -> None:
    """Take the parent's end for Ctrl-C, and a SIGINT for one also where it was ignored.

    Skaffold signals the shell that runs its builder, and some shells end without telling us.
    Terminal settings that a child changes from a process group of its own would stop it, if
    SIGTTOU were not ignored.
    """
    signal.signal(signal.SIGINT, signal.getsignal(signal.SIGTERM))
    signal.signal(signal.SIGTTOU, signal.SIG_IGN)
    threading.Thread(target=_follow, args=(os.getppid(),), daemon=True).start()


def _follow(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(_POLL_SECONDS)
    os.kill(os.getpid(), signal.SIGINT)
