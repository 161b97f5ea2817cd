"""What is told of a configuration that containerd refuses, by the script itself in a real shell."""

import os
import subprocess
from pathlib import Path

from imgload.engines.base import ExecResult
from imgload.tools.remote_registry import restart


def test_a_warning_is_not_the_reason_why_containerd_refuses_a_configuration(tmp_path: Path) -> None:
    """containerd 2.2 warns first of all that is deprecated."""
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
    said = ExecResult(ended.returncode, ended.stdout, ended.stderr).message
    assert (ended.returncode, config.read_text()) == (1, "old\n")
    assert said == "containerd refuses it:\ncontainerd: no such plugin"
