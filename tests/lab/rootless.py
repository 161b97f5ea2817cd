"""Podman of an unprivileged user."""

import contextlib
import os
import pwd
import shutil
import signal
from pathlib import Path

import attrs

from tests.lab.cleanup import evict
from tests.lab.podman import Podman
from tests.lab.shell import run, succeeds

_NOT_ROOTS = "-u XDG_CACHE_HOME -u XDG_CONFIG_HOME -u XDG_DATA_HOME"
_SUBIDS = "600000-665535"


@attrs.frozen
class RootlessPodman(Podman):
    """`podman system service` of a user that the lab creates."""

    code: str = "r"

    @property
    def user(self) -> str:
        """The user's name."""
        return f"imgload-lab{self.paths.octet}"

    @property
    def socket(self) -> Path:
        """The API socket, in a folder that the user may write to."""
        return self._state / "podman.sock"

    def may_be_privileged(self) -> bool:
        """Return True: in the user's namespace all capabilities are available."""
        return True

    def stop(self) -> None:
        """Stop the service, and remove the user."""
        super().stop()
        self._remove_user()

    def clear(self) -> None:
        super().clear()
        self._remove_user()

    def _remove_user(self) -> None:
        self._end_users_processes()
        succeeds("userdel", self.user)

    @property
    def _launcher(self) -> str:
        home = f"HOME={self._folder / 'home'} XDG_RUNTIME_DIR={self._state / 'xdg'}"
        return f"runuser -u {self.user} -- env {_NOT_ROOTS} {home}"

    def _options(self) -> dict[str, object]:
        return {**super()._options(), "storage-driver": "overlay"}

    def _prepare(self) -> None:
        super()._prepare()
        if not succeeds("id", self.user):
            home = f"--home-dir={self._folder / 'home'}"
            run("useradd", "--system", "--password=*", home, self.user)
            run("usermod", "--add-subuids", _SUBIDS, "--add-subgids", _SUBIDS, self.user)
        for name in ("storage", "home", "networks"):
            self._give(self._folder / name)
        for name in ("", "storage", "tmp", "runc", "xdg"):
            self._give(self._state / name)

    def _give(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        folder.chmod(0o700)
        shutil.chown(folder, self.user, self.user)

    def _reset(self) -> None:
        """Clear the state first, because the client needs a running pause process."""
        if not self._wrapper.exists():
            return
        self._end_users_processes()
        evict(self._run, self._folder)
        shutil.rmtree(self._state, ignore_errors=True)
        self._prepare()
        self.remove_containers(*self.containers())

    def _end_users_processes(self) -> None:
        """End the user's processes, including Podman's pause process, which has no lab path."""
        with contextlib.suppress(KeyError):
            user = pwd.getpwnam(self.user).pw_uid
            for process in Path("/proc").glob("[0-9]*"):
                with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                    if process.stat().st_uid == user:
                        os.kill(int(process.name), signal.SIGKILL)
