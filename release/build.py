"""`python -m release.build URL [FOLDER]`: build the files of a release.

Writes the wheel, the source distribution, and krew's archive and manifest to FOLDER (dist/), which
must be empty. URL is the address of the folder from which users will download these files.
"""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path
from string import Template

import imgload

_HERE = Path(__file__).parent
_PURE_PACKAGES = ("attrs", "click", "platformdirs", "pyyaml", "rich")
"""The packages of the command; the SDKs are for the library, the other ones are compiled."""


def build_distributions(folder: Path) -> Path:
    """Write the source distribution and the wheel to an empty folder; return the wheel."""
    _run("build", "--outdir", str(folder), str(_HERE.parent))
    [wheel] = folder.glob("*.whl")
    return wheel


def build_krew_plugin(wheel: Path, url: str) -> None:
    """Write the archive and the manifest for krew to the folder of the wheel."""
    archive = wheel.with_name(f"kubectl-imgload-{imgload.__version__}.tar.gz")
    _write_archive(wheel, archive)
    values = {
        "version": imgload.__version__,
        "uri": f"{url.rstrip('/')}/{archive.name}",
        "sha256": hashlib.sha256(archive.read_bytes()).hexdigest(),
    }
    manifest = Template((_HERE / "krew.yaml").read_text()).substitute(values)
    wheel.with_name("imgload.yaml").write_text(manifest)


def _write_archive(wheel: Path, archive: Path) -> None:
    """Write a plugin with its packages, which runs on every platform that has Python."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        install = ("pip", "install", "--quiet", "--no-compile", "--target", str(folder / "lib"))
        _run(*install, "--no-deps", str(wheel))
        _run(*install, *_PURE_PACKAGES)
        for unused in (*(folder / "lib").rglob("*.so"), folder / "lib/bin", folder / "lib/share"):
            shutil.rmtree(unused) if unused.is_dir() else unused.unlink(missing_ok=True)
        shutil.copy(_HERE / "kubectl-imgload", folder)
        shutil.copy(_HERE.parent / "LICENSE", folder)
        with tarfile.open(archive, "w:gz") as tar:
            for path in sorted(folder.iterdir()):
                tar.add(path, path.name)


def _run(*module: str) -> None:
    subprocess.run([sys.executable, "-m", *module], check=True)


if __name__ == "__main__":
    build_krew_plugin(build_distributions(Path(*sys.argv[2:3] or ["dist"])), sys.argv[1])
