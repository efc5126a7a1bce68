"""Options that several commands share. No heavy imports: `scanonce --help` waits for this file."""

import inspect
import os
from collections.abc import Callable, Mapping
from functools import wraps
from inspect import Parameter
from pathlib import Path
from typing import Annotated, Any, get_type_hints

import typer
from typer.models import OptionInfo

from scanonce.storage.files import expanded
from scanonce.ui.console import note

INTERRUPTED = 130
"""Exit code after Ctrl-C, as of a shell."""

IndexOption = Annotated[
    Path | None, typer.Option("--index", help="Index directory.", show_default="as in config.toml")
]
ConfigOption = Annotated[
    Path | None,
    typer.Option(
        "--config",
        help="Configuration file.",
        show_default="$SCANONCE_CONFIG, or config.toml of a checkout",
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON (schema: docs/cli.md).")]
PathsArgument = Annotated[
    list[Path] | None,
    typer.Argument(
        help="Folders of videos, or single files.", show_default="all folders of the index"
    ),
]
EncoderOption = Annotated[
    str | None,
    typer.Option(
        help='Encoder of a new index: hub id, local folder, "concepts" (needs no hub), or "bundled".',
        show_default="as in config.toml",
    ),
]
KeyframesOption = Annotated[
    bool, typer.Option("--keyframes", help="Use key frames only: faster, less precise.")
]
SampleFpsOption = Annotated[
    float | None,
    typer.Option(
        "--sample-fps",
        min=0.01,
        max=60,
        help="Frames per second of video that are encoded.",
        show_default="as in config.toml",
    ),
]
FullOption = Annotated[
    bool, typer.Option("--full", help="Read all stored values, and hash the video files.")
]

# of the trainings
BenchmarkOption = Annotated[
    str, typer.Option(help='Format of the file: a benchmark\'s name, or "scanonce" for your own.')
]
ValidationOption = Annotated[
    Path | None,
    typer.Option(help="File to validate on.", show_default="a share of the videos"),
]
VALIDATION_SHARE = typer.Option(
    min=0, max=0.9, help="Share of the videos that is held out; 0: none."
)
ValidationShareOption = Annotated[float, VALIDATION_SHARE]
SEED = typer.Option(min=0, help="Seed of all random numbers.")
SeedOption = Annotated[int, SEED]
WorkOption = Annotated[
    Path | None,
    typer.Option(help="Folder of the training's state and curves.", show_default="OUT.work"),
]
ResumeOption = Annotated[
    bool, typer.Option("--resume", help="Continue the training that was stopped.")
]
MinutesCapOption = Annotated[
    float | None,
    typer.Option(
        min=0.01, help="End the training after this number of minutes.", show_default="no limit"
    ),
]


def absolute(path: Path) -> Path:
    """Return the path as the catalogue stores it: absolute, symbolic links not followed."""
    return Path(os.path.abspath(expanded(path)))


def typed_settings(keyframes: bool, sample_fps: float | None = None) -> dict[str, str | float]:
    """Return the settings of the indexer that were given on the command line, by name."""
    typed: dict[str, str | float] = {"sampling": "keyframes"} if keyframes else {}
    return typed if sample_fps is None else {**typed, "sample_fps": sample_fps}


def output_folders(out: Path, work: Path | None) -> tuple[Path, Path]:
    """Return the folder of the result of a training and the folder of its state, absolute."""
    out = absolute(out)
    return out, absolute(work) if work else out.with_name(f"{out.name}.work")


def renamed(names: Mapping[str, str]) -> dict[str, Any]:
    """Return context settings for a command that accepts old spellings of its options, with a line on standard error.

    Args:
        names: new option by old option, without the dashes in front.
    """

    # click asks it for the name of each option it meets, declared or given, without the dashes
    def normalise(name: str) -> str:
        if name in names:
            new = names[name]
            note(f"--{name} is called --{new} now; the next version drops --{name}.")
            return new
        return name

    return {"token_normalize_func": normalise}


Command = Callable[..., None]


def recipe_options(recipe: type, options: Mapping[str, OptionInfo]) -> Callable[[Command], Command]:
    """Give a command one option for each of these fields of a recipe, instead of its parameter ``recipe``.

    The name, the type and the default of an option are those of the field.

    Args:
        recipe: a dataclass.
        options: help and bounds by the name of the field.
    """
    types = get_type_hints(recipe)

    def decorate(command: Command) -> Command:
        hints = get_type_hints(command, include_extras=True)
        # keyword-only, since an argument without a default may follow an option with one
        parameters = [
            each.replace(kind=Parameter.KEYWORD_ONLY, annotation=hints[name])
            for name, each in inspect.signature(command).parameters.items()
        ]
        position = [each.name for each in parameters].index("recipe")
        parameters[position : position + 1] = [
            Parameter(
                name,
                Parameter.KEYWORD_ONLY,
                default=getattr(recipe, name),
                annotation=Annotated[types[name], option],
            )
            for name, option in options.items()
        ]

        @wraps(command)
        def run(**given: Any) -> None:
            values = {name: given.pop(name) for name in options}
            command(recipe=recipe(**values), **given)

        run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        return run

    return decorate
