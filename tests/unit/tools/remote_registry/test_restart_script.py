"""The script that changes containerd's configuration, in a real shell."""

import os
import subprocess
from pathlib import Path

from imgload.engines.base import ExecResult
from imgload.tools.remote_registry import restart


def test_script_reports_the_error_and_not_the_warnings_of_containerd(tmp_path: Path) -> None:
    """containerd 2.2 prints deprecation warnings first."""
    program = tmp_path / "containerd"
    program.write_text(
        "#!/bin/sh\n"
        'echo \'time="2026-11-29T03:00:00Z" level=warning msg="it is deprecated"\' >&2\n'
        "echo 'containerd: no such plugin' >&2\n"
        "exit 1\n"
    )
    program.chmod(0o755)
    config = tmp_path / "config.toml"
    config.write_text("old\n")
    text = "".join(vars(restart)[part] for part in ("_LISTENER", "_RESTART", "_SET"))
    script = ["sh", "-c", text, "imgload", str(config), "old\n", "new\n", "script"]
    environ = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    ended = subprocess.run(script, capture_output=True, env=environ, check=False)
    message = ExecResult(ended.returncode, ended.stdout, ended.stderr).message
    assert (ended.returncode, config.read_text()) == (1, "old\n")
    assert message == "containerd refuses it:\ncontainerd: no such plugin"
