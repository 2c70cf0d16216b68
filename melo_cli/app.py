"""The command line: `melo` with its subcommands, and how an error becomes one line and an exit code.

Exit codes: 0 done; 1 the work ran and something asked for does not hold, or melo itself is at fault; 2 bad
input; 130 interrupted.
"""

from __future__ import annotations

import shlex
import sys
import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Annotated, Any

import typer

import melo_cli
from melo_cli.commands._garbage_collection import nothing_collected
from melo_cli.commands.bench import bench
from melo_cli.commands.calibrate import calibrate
from melo_cli.commands.chat import chat
from melo_cli.commands.diff import diff
from melo_cli.commands.doctor import doctor
from melo_cli.commands.edit import edit
from melo_cli.commands.eval import evaluate
from melo_cli.commands.export import export
from melo_cli.commands.gc import gc
from melo_cli.commands.inspect import inspect
from melo_cli.commands.log import log
from melo_cli.commands.migrate import migrate
from melo_cli.commands.query import query
from melo_cli.commands.recipes import recipes_app
from melo_cli.commands.revert import revert
from melo_cli.commands.route import route
from melo_cli.commands.serve import serve
from melo_cli.commands.show import show
from melo_cli.commands.status import status
from melo_cli.commands.verify import verify
from melo_cli.errors import MeloError
from melo_cli.ui.output import make_messages
from melo_store.errors import StoreWarning

# In the order of `--help`.
_COMMANDS: dict[str, Callable[..., None]] = {
    "edit": edit,
    "calibrate": calibrate,
    "query": query,
    "chat": chat,
    "eval": evaluate,
    "bench": bench,
    "export": export,
    "serve": serve,
    "route": route,
    "inspect": inspect,
    "status": status,
    "log": log,
    "show": show,
    "diff": diff,
    "revert": revert,
    "verify": verify,
    "gc": gc,
    "migrate": migrate,
    "doctor": doctor,
}
# What every wrong option or argument raises: the parent of the one that typer shows.
_UsageError: Any = typer.BadParameter.__base__


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command line and return its exit code."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    debug, given = _take_debug(given)
    _escape_what_streams_cannot_encode()
    try:
        with nothing_collected(), _store_warnings_as_lines():
            command = typer.main.get_command(build_app(given))
            code = command.main(given, "melo", standalone_mode=False, obj=shlex.join(["melo", *given]))
        return int(code or 0)
    except (KeyboardInterrupt, typer.Abort):
        return 130
    except Exception as error:  # noqa: BLE001  the last resort: a user gets one line, whatever happened
        if debug:
            traceback.print_exception(error)
        line, code = _described(error)
        make_messages().error(line)
        return code


def build_app(given: Sequence[str] = ()) -> typer.Typer:
    """All subcommands, or the one that a command line begins with: typer takes long to build all of them.

    `--help` is drawn with boxes for a terminal alone.
    """
    only = given[0] if given and given[0] in {"recipes", *_COMMANDS} else None
    app = typer.Typer(
        name="melo",
        help="Edit language models, keep the edits in a store, and answer with them.",
        rich_markup_mode="rich" if sys.stdout.isatty() else None,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback(invoke_without_command=True)(_melo)
    for name, command in _COMMANDS.items():
        if only in (None, name):
            app.command(name)(command)
    if only in (None, "recipes"):
        app.add_typer(recipes_app, name="recipes")
    return app


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"melo {melo_cli.__version__}")
        raise typer.Exit


def _melo(
    context: typer.Context,
    version: Annotated[
        bool,
        typer.Option("--version", help="Print the version.", callback=_show_version, is_eager=True),
    ] = False,
    debug: Annotated[
        bool, typer.Option("--debug", help="Show the traceback of an error; also allowed after the command.")
    ] = False,
) -> None:
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())


def _take_debug(arguments: list[str]) -> tuple[bool, list[str]]:
    """Find `--debug` wherever it stands before a `--`, so that it can be added to any command line."""
    end = arguments.index("--") if "--" in arguments else len(arguments)
    options = [argument for argument in arguments[:end] if argument != "--debug"]
    return len(options) < end, options + arguments[end:]


def _described(error: Exception) -> tuple[str, int]:
    """The line and the exit code of an error."""
    if isinstance(error, MeloError):
        return str(error), error.exit_code
    if isinstance(error, _UsageError):
        what = " ".join(error.format_message().split()).rstrip(".")
        path = error.ctx.command_path if error.ctx is not None else "melo"
        return f"{what}; see `{path} --help`", 2
    what = " ".join(str(error).split())
    return f"melo failed: {type(error).__name__}: {what}; add --debug for the traceback", 1


@contextmanager
def _store_warnings_as_lines() -> Iterator[None]:
    """Show what the store repaired on its way like any other message."""
    with warnings.catch_warnings():
        others = warnings.showwarning

        def show(message: Warning | str, category: type[Warning], *source: Any, **more: Any) -> None:
            if issubclass(category, StoreWarning):
                make_messages().warn(str(message))
            else:
                others(message, category, *source, **more)

        warnings.showwarning = show
        yield


def _escape_what_streams_cannot_encode() -> None:
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
