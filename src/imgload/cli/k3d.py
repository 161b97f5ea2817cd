"""``imgload k3d``; the script of ``--install`` runs ``python -m imgload.cli.k3d``."""

from __future__ import annotations

from imgload.cli.dropin import Dropin, serve
from imgload.tools.dropins.k3d import K3d

k3d = Dropin(
    K3d(),
    """Run as k3d: imgload does `k3d image import`.

    Passes all other commands to the real k3d. Installed as `k3d` early on PATH, it serves Skaffold,
    Tilt and scripts unchanged. Unlike in k3d, a failed import has exit status 1.

    \b
    Examples:
      imgload k3d --install ~/.local/bin            install imgload as `k3d`
      imgload k3d --uninstall ~/.local/bin          remove it
      imgload k3d image import app:dev              load into the cluster "k3s-default"
      imgload k3d image import app:dev db.tar -c a  load an image and an archive into "a"
      docker save app | imgload k3d image import -  load an archive from a pipe
      imgload k3d cluster list                      run the real k3d
    """,
)

if __name__ == "__main__":
    serve(K3d())
