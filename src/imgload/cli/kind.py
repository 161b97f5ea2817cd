"""``imgload kind``."""

from __future__ import annotations

from pathlib import Path

import click

from imgload.cli.dropin import Verbatim, dropin_options, serve, stand_in
from imgload.tools.dropins.kind import Kind


@click.command(cls=Verbatim, no_args_is_help=True)
@dropin_options
def kind(arguments: tuple[str, ...], to: Path | None, off: Path | None) -> None:
    """Take kind's arguments: do `kind load`, and hand the rest to the real kind.

    Flags, exit statuses and variables are kind's. Installed under the name of kind, early on PATH,
    it serves Skaffold, Tilt and scripts without a change to them.

    \b
    Examples:
      imgload kind load docker-image app:dev           into the cluster "kind"
      imgload kind load docker-image app:dev --name a  into this one
      imgload kind load image-archive app.tar          all images of an archive
      imgload kind get clusters                        is the real kind's
      imgload kind --install ~/.local/bin              write a `kind` there that is imgload
      imgload kind --uninstall ~/.local/bin            take it away
    """  # noqa: D301 - click's mark for a block that keeps its lines
    stand_in(Kind(), arguments, to, off)


if __name__ == "__main__":
    serve(Kind())
