"""The `scanonce` command: its subcommands are in `ui.commands`, one file each.

Each is a Typer function that parses, calls one function of another room and renders the result. Heavy packages are
imported inside of the functions, so that `--help` answers at once.

Exit codes: 0 done; 1 an error, with its next step on standard error; 2 wrong usage; 130 stopped by Ctrl-C.
"""

import sys
from importlib.metadata import PackageNotFoundError, version
from typing import Annotated

import typer

from scanonce.storage.errors import ScanonceError
from scanonce.ui.commands.backup import backup, restore
from scanonce.ui.commands.config import config
from scanonce.ui.commands.convert import convert
from scanonce.ui.commands.demo import demo
from scanonce.ui.commands.doctor import doctor
from scanonce.ui.commands.eval import evaluate
from scanonce.ui.commands.forget import forget
from scanonce.ui.commands.index import index
from scanonce.ui.commands.label import label
from scanonce.ui.commands.localise import localise
from scanonce.ui.commands.options import INTERRUPTED, renamed
from scanonce.ui.commands.reindex import reindex
from scanonce.ui.commands.repair import repair
from scanonce.ui.commands.search import search
from scanonce.ui.commands.status import status
from scanonce.ui.commands.train_clip import train_clip
from scanonce.ui.commands.train_soonet import train_soonet
from scanonce.ui.commands.tune import tune
from scanonce.ui.commands.ui import show_ui
from scanonce.ui.commands.verify import verify
from scanonce.ui.commands.watch import watch

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


def _print_version(asked: bool) -> None:
    if asked:
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
) -> None:
    """Take the options that belong to no command."""


app.command()(index)
app.command()(watch)
app.command(context_settings=renamed({"anyway": "force"}))(reindex)
app.command(context_settings=renamed({"not-label": "exclude-label"}))(search)
app.command()(label)
app.command()(localise)
app.command()(convert)
app.command()(tune)
app.command()(status)
app.command()(forget)
app.command()(verify)
app.command()(repair)
app.command()(backup)
app.command()(restore)
app.command("ui")(show_ui)
app.add_typer(train, name="train")
train.command("clip")(train_clip)
train.command("soonet")(train_soonet)
app.command("eval")(evaluate)
app.command()(doctor)
app.command()(config)
app.command()(demo)


def main() -> None:
    """Run the command line; print an expected error as a message, without a traceback."""
    try:
        app()
    except ScanonceError as error:
        print(f"scanonce: {error}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
    except BrokenPipeError:  # `scanonce search ... | head`
        sys.stderr.close()
        sys.exit(0)


if __name__ == "__main__":
    main()
