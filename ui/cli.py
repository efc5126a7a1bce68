"""The `scanonce` command: its subcommands are in `ui.commands`, one file each.

Each is a Typer function that parses, calls one function of another room and renders the result. Heavy packages are
imported inside of the functions, so that `--help` answers at once.

Exit codes: 0 done; 1 an error, with its next step on standard error; 2 wrong usage; 70 an error that was not foreseen,
with the place of a report; 130 stopped by Ctrl-C.
"""

import os
import sys
from typing import Annotated, TextIO

import typer
from typer.exceptions import TyperException

from scanonce.storage.errors import ScanonceError
from scanonce.ui.commands.backup import backup, restore
from scanonce.ui.commands.config import config
from scanonce.ui.commands.convert import convert
from scanonce.ui.commands.cut import cut
from scanonce.ui.commands.demo import demo
from scanonce.ui.commands.doctor import doctor
from scanonce.ui.commands.duplicates import duplicates
from scanonce.ui.commands.encoders import encoders
from scanonce.ui.commands.eval import evaluate
from scanonce.ui.commands.fetch import fetch
from scanonce.ui.commands.forget import forget
from scanonce.ui.commands.index import index
from scanonce.ui.commands.label import label
from scanonce.ui.commands.localise import localise
from scanonce.ui.commands.mcp import mcp
from scanonce.ui.commands.options import INTERRUPTED, renamed
from scanonce.ui.commands.peek import peek
from scanonce.ui.commands.reindex import reindex
from scanonce.ui.commands.repair import repair
from scanonce.ui.commands.saved import add_saved, list_saved, remove_saved, run_saved
from scanonce.ui.commands.search import search
from scanonce.ui.commands.selects import selects
from scanonce.ui.commands.serve import serve
from scanonce.ui.commands.status import status
from scanonce.ui.commands.token import add_token, list_tokens, revoke_token
from scanonce.ui.commands.tracks import add_tracks, remove_track, show_tracks
from scanonce.ui.commands.train_clip import train_clip
from scanonce.ui.commands.train_soonet import train_soonet
from scanonce.ui.commands.tune import tune
from scanonce.ui.commands.ui import show_ui
from scanonce.ui.commands.unusual import unusual
from scanonce.ui.commands.verify import verify
from scanonce.ui.commands.watch import watch
from scanonce.ui.console import note, write_anything
from scanonce.ui.reports import show_traceback, tell, tell_of_threads_and_logs
from scanonce.ui.safe_text import visible

UNEXPECTED = 70
"""Exit code of an error that was not foreseen, as in sysexits.h."""

app = typer.Typer(
    name="scanonce",
    help="Search your videos by text. Each video is scanned once, when it is indexed.",
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_show_locals=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
train = typer.Typer(
    no_args_is_help=True,
    help="Train an encoder or a localiser on your own videos.",
    rich_markup_mode="rich",
)

tracks = typer.Typer(
    help="Read speech, text in the image and subtitles, so that words find moments too.",
    rich_markup_mode="rich",
)

saved = typer.Typer(
    no_args_is_help=True,
    help="Keep searches under a name, and see which matches are new.",
    rich_markup_mode="rich",
)

token = typer.Typer(
    no_args_is_help=True,
    help="Make, list and revoke the tokens by which programs use the HTTP API.",
    rich_markup_mode="rich",
)


def _print_version(asked: bool) -> None:
    if asked:
        from importlib.metadata import PackageNotFoundError, version

        try:
            print(f"scanonce {version('scanonce')}")
        except PackageNotFoundError:
            print("scanonce, not installed: run from its folder")
        raise typer.Exit


@app.callback()
def options(
    show_version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print the version."
        ),
    ] = False,
    debug: Annotated[
        bool,
        typer.Option("--debug", help="Show the traceback of an error; after any command, too."),
    ] = False,
) -> None:
    """Take the options that belong to no command."""


app.command()(index)
app.command()(watch)
app.command(context_settings=renamed({"anyway": "force"}))(reindex)
app.command(context_settings=renamed({"not-label": "exclude-label"}))(search)
app.command()(cut)
app.command()(peek)
app.command()(label)
app.command()(duplicates)
app.command()(unusual)
app.command()(localise)
app.command()(convert)
app.command()(tune)
app.command()(status)
app.command()(selects)
app.command()(forget)
app.command()(verify)
app.command()(repair)
app.command()(backup)
app.command()(restore)
app.command("ui")(show_ui)
app.command()(serve)
app.command()(mcp)
app.add_typer(token, name="token")
token.command("add")(add_token)
token.command("list")(list_tokens)
token.command("revoke")(revoke_token)
app.add_typer(tracks, name="tracks")
tracks.callback(invoke_without_command=True)(show_tracks)
tracks.command("add")(add_tracks)
tracks.command("remove")(remove_track)
app.add_typer(saved, name="saved")
saved.command("add")(add_saved)
saved.command("list")(list_saved)
saved.command("run")(run_saved)
saved.command("remove")(remove_saved)
app.add_typer(train, name="train")
train.command("clip")(train_clip)
train.command("soonet")(train_soonet)
app.command("eval")(evaluate)
app.command()(encoders)
app.command()(fetch)
app.command()(doctor)
app.command()(config)
app.command()(demo)


def main() -> None:
    """Run the command line. Every error becomes a sentence on standard error."""
    _open_streams()
    debug = _takes_debug()
    tell_of_threads_and_logs(debug=debug)
    try:
        code = _run()
        sys.stdout.flush()
    except ScanonceError as error:
        if debug:
            show_traceback(error)
        note(*error.args)
        code = 1
    except KeyboardInterrupt:
        code = INTERRUPTED
    except BrokenPipeError:  # `scanonce search ... | head`
        _drop_output()
        code = 0
    except SystemExit as end:
        if not isinstance(end.__context__, BrokenPipeError):
            raise
        _drop_output()  # typer ends such a command with 1
        code = 0
    except BaseException as error:  # packages written in Rust have panics, which are no Exception
        tell(error, debug=debug)
        _drop_output()
        code = UNEXPECTED
    sys.exit(code)


def _open_streams() -> None:
    """Have standard output and error even where a shell closed them, and let them take any text."""
    sys.stdout = sys.stdout or _nowhere()
    sys.stderr = sys.stderr or _nowhere()
    write_anything(sys.stdout, sys.stderr)


def _nowhere() -> TextIO:
    return os.fdopen(os.open(os.devnull, os.O_WRONLY), "w")


def _drop_output() -> None:
    """Forget output that cannot be written: Python would try again at its end, and fail with a traceback."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _takes_debug() -> bool:
    """Take --debug out of the arguments, wherever it is before a "--", and return whether it was there."""
    end = sys.argv.index("--") if "--" in sys.argv else len(sys.argv)
    given = sys.argv[1:end]
    sys.argv[1:end] = [word for word in given if word != "--debug"]
    return "--debug" in given


def _run() -> int:
    """Run a command and return its exit code; wrong usage is explained."""
    try:
        code = app(standalone_mode=False)
    except TyperException as error:
        from typer.rich_utils import rich_format_error  # slow to import

        error.message = visible(error.message)
        rich_format_error(error)  # type: ignore[arg-type]
        return error.exit_code
    return code if isinstance(code, int) else 0


if __name__ == "__main__":
    main()
