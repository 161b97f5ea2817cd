"""Drop-ins on PATH, and the real programs behind them."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

import imgload
from imgload.core.errors import UsageError
from imgload.tools.dropins.install import find_real, install, is_drop_in, uninstall

REAL = '#!/bin/sh\necho "real: $*"\nexit 3\n'
TAKES = "kind load"


def write(folder: Path, text: str = REAL, mode: int = 0o755) -> Path:
    folder.mkdir(exist_ok=True)
    program = folder / "kind"
    program.write_text(text)
    program.chmod(mode)
    return program


@pytest.fixture
def on_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> "OnPath":
    """Give a function that puts folders first on PATH."""
    return OnPath(tmp_path, monkeypatch)


class OnPath:
    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self._folder, self._monkeypatch = folder, monkeypatch

    def __call__(self, *names: str) -> list[Path]:
        folders = [self._folder / name for name in names]
        for folder in folders:
            folder.mkdir(exist_ok=True)
        self._monkeypatch.setenv("PATH", ":".join(map(str, [*folders, "/usr/bin", "/bin"])))
        return folders


def call(*arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
    source = str(Path(imgload.__file__).parents[1])
    env = {**os.environ, "PYTHONPATH": source, **environ}
    return subprocess.run(
        ["kind", *arguments], env=env, capture_output=True, text=True, check=False, timeout=60
    )


def test_find_real_skips_drop_ins_links_to_them_and_non_programs(on_path: OnPath) -> None:
    first, second, third, fourth, last = on_path(*"abcde")
    install("kind", TAKES, first)
    (second / "kind").symlink_to(first / "kind")
    write(third, mode=0o644)
    (fourth / "kind").mkdir()
    assert find_real("kind") is None
    write(last)
    assert find_real("kind") == last / "kind"


def test_drop_in_passes_other_commands_to_the_real_program(on_path: OnPath) -> None:
    """Arguments, output and exit status are unchanged."""
    first, last = on_path("a", "b")
    install("kind", TAKES, first)
    write(last)
    words = ["get", "--x=1", "", "a b", "*", "--", "-q", "--install", "x", "--help"]
    done = call(*words)
    assert (done.returncode, done.stderr) == (3, "")
    assert done.stdout == f"real: {' '.join(words)}\n"


def test_real_program_gets_stdin_and_default_signal_handlers(on_path: OnPath) -> None:
    """Python ignores SIGPIPE, and exec would pass that on."""
    first, last = on_path("a", "b")
    install("kind", TAKES, first)
    write(last, "#!/bin/sh\ngrep SigIgn /proc/self/status\ncat\n")
    done = subprocess.run(
        ["kind"],
        input="from stdin",
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": str(Path(imgload.__file__).parents[1])},
    )
    ignored = int(done.stdout.split()[1], 16)
    assert ignored & 1 << 12 == 0
    assert done.stdout.endswith("from stdin")


@pytest.mark.parametrize(
    "text", ['#!/bin/sh\nexec kind "$@"\n', '#!/bin/sh\nkind "$@"\n'], ids=["exec", "call"]
)
def test_drop_in_stops_an_endless_loop_through_a_wrapper(on_path: OnPath, text: str) -> None:
    first, last = on_path("a", "b")
    install("kind", TAKES, first)
    wrapper = write(last, text)
    done = call("get", "clusters")
    assert (done.returncode, done.stdout) == (126, "")
    assert f"{wrapper} is not the real program" in done.stderr


def test_drop_in_exits_with_127_without_the_real_program(on_path: OnPath) -> None:
    [first] = on_path("a")
    install("kind", TAKES, first)
    done = call("get", "clusters")
    assert (done.returncode, done.stdout) == (127, "")
    assert "`kind get clusters`" in done.stderr
    assert "https://kind.sigs.k8s.io" in done.stderr
    assert call("load", "--help").returncode == 0


def test_drop_in_names_a_real_program_that_cannot_run(on_path: OnPath) -> None:
    """A file without #! cannot be executed."""
    first, last = on_path("a", "b")
    install("kind", TAKES, first)
    broken = write(last, "echo hello\n")
    done = call("version")
    assert (done.returncode, done.stdout) == (126, "")
    assert f"cannot run {broken}" in done.stderr


def test_find_real_treats_an_empty_path_entry_as_the_working_folder(
    on_path: OnPath, monkeypatch: pytest.MonkeyPatch
) -> None:
    [folder] = on_path("a")
    write(folder)
    monkeypatch.chdir(folder)
    monkeypatch.setenv("PATH", ":/bin")
    assert find_real("kind") == Path("kind")


def test_drop_in_imports_nothing_from_the_working_folder(
    on_path: OnPath, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A project may have a click.py."""
    [first] = on_path("a")
    install("kind", TAKES, first)
    (tmp_path / "click.py").write_text("raise SystemExit('imported')")
    monkeypatch.chdir(tmp_path)
    assert call("load", "--help").returncode == 0


@pytest.mark.parametrize("name", ["with space", "it's", "$HOME;`x`"])
def test_install_quotes_the_folder_for_the_shell(on_path: OnPath, name: str) -> None:
    [first] = on_path(name)
    messages = install("kind", TAKES, first)
    assert messages == [f"{first}/kind: imgload does `kind load`, and no other kind is on PATH"]
    assert call("load", "-h").returncode == 0


def test_drop_in_without_its_python_runs_the_real_program(
    on_path: OnPath, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a warning: its virtual environment may have been deleted."""
    first, second, last = on_path("a", "b", "c d")
    monkeypatch.setattr(sys, "executable", "/no/such/python")
    install("kind", TAKES, first)
    (second / "kind").symlink_to(first / "kind")
    done = call("get", "clusters")
    assert done.returncode == 127
    assert f"installed {first}/kind no longer exists; remove that file" in done.stderr
    write(last, '#!/bin/sh\nprintf "<%s>" "$@"\n')
    done = call("get", "a  b", "*")
    assert (done.returncode, done.stdout) == (0, "<get><a  b><*>")
    assert "remove that file" in done.stderr


def test_install_explains_the_order_on_path(on_path: OnPath) -> None:
    before, real, after = on_path("a", "b", "c")
    program = write(real)
    assert len(install("kind", TAKES, before)) == 1
    uninstall("kind", before)
    for folder in (after, write(before.parent / "elsewhere").parent):
        (folder / "kind").unlink(missing_ok=True)
        messages = install("kind", TAKES, folder)
        assert str(program) in messages[0]
        assert f"before {real}" in messages[1]
        assert messages[2] == f"  export PATH={folder}:$PATH"


def test_install_and_uninstall_leave_other_files_and_links_alone(tmp_path: Path) -> None:
    real = write(tmp_path / "a")
    links, ours = tmp_path / "b", tmp_path / "c"
    ours.mkdir()
    install("kind", TAKES, ours)
    for target in (real, ours / "kind", tmp_path / "nothing"):
        links.mkdir(exist_ok=True)
        (links / "kind").unlink(missing_ok=True)
        (links / "kind").symlink_to(target)
        for folder in {links, real.parent}:
            with pytest.raises(UsageError, match="not imgload's"):
                install("kind", TAKES, folder)
            with pytest.raises(UsageError, match="not imgload's"):
                uninstall("kind", folder)
    assert real.read_text() == REAL
    assert not (tmp_path / "nothing").exists()
    assert is_drop_in(ours / "kind")


def test_install_overwrites_a_drop_in_and_uninstall_removes_it(tmp_path: Path) -> None:
    path = tmp_path / "kind"
    install("kind", TAKES, tmp_path)
    text = path.read_text()
    path.write_text(text.replace(sys.executable, "/old/python"))
    install("kind", TAKES, tmp_path)
    assert path.read_text() == text
    assert path.stat().st_mode & 0o777 == 0o755
    assert uninstall("kind", tmp_path) == path
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(UsageError, match="does not exist"):
        uninstall("kind", tmp_path)


def test_install_does_not_create_a_missing_folder(tmp_path: Path) -> None:
    """It may be a typo."""
    with pytest.raises(UsageError, match="no such folder") as raised:
        install("kind", TAKES, tmp_path / "x")
    assert raised.value.hint == f"mkdir -p {tmp_path}/x"
    with pytest.raises(UsageError, match="no such folder") as raised:
        uninstall("kind", tmp_path / "x")
    assert raised.value.hint == "list the programs with that name: type -a kind"
    assert not (tmp_path / "x").exists()
