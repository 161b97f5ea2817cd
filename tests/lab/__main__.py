"""`python -m tests.lab up [PIECE...] | down [--purge] | status | env [ENGINE]`."""

import argparse
import shlex
import sys

from tests.isolation import hide_settings
from tests.lab.lab import DEFAULT, PIECES, Lab
from tests.lab.machine import Paths, demand_root
from tests.lab.shell import LabError, step


def main() -> int:
    """Run one command; return 1 if it failed."""
    options = _parser().parse_args()
    paths = Paths.find()
    hide_settings(paths.root / "home")
    try:
        options.command(Lab(paths), options)
    except LabError as error:
        print(error, file=sys.stderr)  # noqa: T201
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.lab", description=__doc__)
    commands = parser.add_subparsers(required=True)
    up = commands.add_parser("up", help=f"start the missing ones of: {' '.join(PIECES)}")
    up.add_argument("pieces", nargs="*", metavar="PIECE")
    up.set_defaults(command=_up)
    down = commands.add_parser("down", help="stop everything and remove its files")
    down.add_argument("--purge", action="store_true", help="remove the cache too")
    down.set_defaults(command=_down)
    commands.add_parser("status", help="list engines and containers").set_defaults(command=_status)
    env = commands.add_parser("env", help="shell lines that point to an engine")
    env.add_argument("engine", nargs="?", default="docker")
    env.set_defaults(command=_env)
    return parser


def _up(lab: Lab, options: argparse.Namespace) -> None:
    demand_root()
    with step("up"):
        lab.up(*(options.pieces or DEFAULT))


def _down(lab: Lab, options: argparse.Namespace) -> None:
    lab.down(purge=options.purge)


def _status(lab: Lab, _options: argparse.Namespace) -> None:
    for engine in lab.engines.values():
        running = engine.running()
        print(f"{engine.name}: {engine.url if running else 'not running'}")  # noqa: T201
        for name, runs in sorted(engine.containers().items()) if running else ():
            print(f"  {name}{'' if runs else ' (stopped)'}")  # noqa: T201


def _env(lab: Lab, options: argparse.Namespace) -> None:
    for name, value in lab.environ(options.engine).items():
        print(f"export {name}={shlex.quote(value)}")  # noqa: T201


if __name__ == "__main__":
    sys.exit(main())
