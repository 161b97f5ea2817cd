"""``imgload k3d``."""

from __future__ import annotations

from pathlib import Path

import click

from imgload.cli.dropin import Verbatim, dropin_options, serve, stand_in
from imgload.tools.dropins.k3d import K3d


@click.command(cls=Verbatim, no_args_is_help=True)
@dropin_options
def k3d(arguments: tuple[str, ...], to: Path | None, off: Path | None) -> None:
    """Take k3d's arguments: do `k3d image import`, and hand the rest to the real k3d.

    Installed under the name of k3d, early on PATH, it serves Skaffold, Tilt and scripts without a
    change to them. An import that fails has exit status 1, unlike k3d's.

    \b
    Examples:
      imgload k3d image import app:dev              into the cluster "k3s-default"
      imgload k3d image import app:dev db.tar -c a  an image and an archive into this one
      docker save app | imgload k3d image import -  an archive from a pipe
      imgload k3d cluster list                      is the real k3d's
      imgload k3d --install ~/.local/bin            write a `k3d` there that is imgload
      imgload k3d --uninstall ~/.local/bin          take it away
    """  # noqa: D301 - click's mark for a block that keeps its lines
    stand_in(K3d(), arguments, to, off)


if __name__ == "__main__":
    serve(K3d())
