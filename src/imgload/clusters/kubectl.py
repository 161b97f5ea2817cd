"""The user's own kubectl."""

from __future__ import annotations

import subprocess

from imgload.core.errors import ClusterError, reason


def run_kubectl(context: str, *arguments: str, stdin: str = "", seconds: int = 5) -> str:
    """Return the output of kubectl in a kube context.

    `seconds` limits each request to the cluster, and the whole call to twice as long. ClusterError
    is raised if kubectl is not installed, fails, or takes longer.
    """
    command = ["kubectl", f"--context={context}", f"--request-timeout={seconds}s", *arguments]
    try:
        result = subprocess.run(  # noqa: S603 - a list of arguments, no shell
            command, input=stdin, capture_output=True, text=True, timeout=2 * seconds, check=False
        )
    except FileNotFoundError as error:
        raise ClusterError("kubectl is not installed") from error
    except (OSError, UnicodeDecodeError, subprocess.TimeoutExpired) as error:
        raise ClusterError(f"kubectl failed: {error}") from error
    if result.returncode:
        raise ClusterError(f"kubectl: {reason(result.stderr) or 'failed'}")
    return result.stdout
