"""``imgload kind``; the script of ``--install`` runs ``python -m imgload.cli.kind``."""

from __future__ import annotations

from imgload.cli.dropin import Dropin, serve
from imgload.tools.dropins.kind import Kind

kind = Dropin(
    Kind(),
    """Run as kind: imgload does `kind load`.

    Takes kind's flags and variables, returns kind's exit statuses, and passes all other commands
    to the real kind. Installed as `kind` early on PATH, it serves Skaffold, Tilt and scripts
    unchanged.

    \b
    Examples:
      imgload kind --install ~/.local/bin              install imgload as `kind`
      imgload kind --uninstall ~/.local/bin            remove it
      imgload kind load docker-image app:dev           load into the cluster "kind"
      imgload kind load docker-image app:dev --name a  load into the cluster "a"
      imgload kind load image-archive app.tar          load all images of an archive
      imgload kind get clusters                        run the real kind
    """,
)

if __name__ == "__main__":
    serve(Kind())
