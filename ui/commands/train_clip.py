"""`scanonce train clip`."""

import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer

from scanonce.training.clip.recipe import Recipe
from scanonce.ui.commands.options import (
    SEED,
    VALIDATION_SHARE,
    BenchmarkOption,
    ConfigOption,
    MinutesCapOption,
    ResumeOption,
    ValidationOption,
    WorkOption,
    output_folders,
    recipe_options,
)
from scanonce.ui.console import new_console

_RECIPE_OPTIONS = {
    "head": typer.Option(help="Pooling of the frames of a clip; tight only re-ranks."),
    "epochs": typer.Option(min=1, help="Passes over the clips."),
    "batch": typer.Option(min=1, help="Clips that a process embeds at once."),
    "accumulate": typer.Option(
        min=1, help="Number of parts of a batch: compares more clips in the same memory."
    ),
    "lr": typer.Option(min=0, help="Highest learning rate of the head."),
    "encoder_lr": typer.Option(
        min=0, help="Highest learning rate of the encoder; 0: it is not trained."
    ),
    "freeze_layers": typer.Option(
        min=0, help="First blocks of both towers that are not trained; 0: all are."
    ),
    "checkpointing": typer.Option(
        "--checkpointing", help="Compute activations twice: takes less memory and more time."
    ),
    "precision": typer.Option(
        help="Precision of the encoder's arithmetic; auto: bfloat16 if the hardware multiplies it."
    ),
    "max_frames": typer.Option(min=1, help="Most frames of a clip, one a second."),
    "augment": typer.Option(help="Shift frames and change their light a little."),
    "validation_share": VALIDATION_SHARE,
    "seed": SEED,
}


@recipe_options(Recipe, _RECIPE_OPTIONS)
def train_clip(
    captions: Annotated[
        Path, typer.Argument(help="Captions: .csv, .jsonl, or the file of a benchmark.")
    ],
    out: Annotated[Path, typer.Argument(help="Folder for the checkpoint.")],
    recipe: Recipe,
    videos: Annotated[
        Path | None,
        typer.Option(help="Folder of the videos.", show_default="that of the captions"),
    ] = None,
    benchmark: BenchmarkOption = "scanonce",
    encoder: Annotated[
        str | None,
        typer.Option(
            help='Encoder to start from: hub id, local folder, or "bundled".',
            show_default="as in config.toml",
        ),
    ] = None,
    validation: ValidationOption = None,
    work: WorkOption = None,
    resume: ResumeOption = False,
    minutes_cap: MinutesCapOption = None,
    config: ConfigOption = None,
) -> None:
    """Fine-tune an encoder on videos with captions, as CLIP4Clip does; `torchrun` uses several GPUs."""
    from scanonce.training.clip.captions import read_captions
    from scanonce.training.clip.finetune import finetune
    from scanonce.training.processes import meet_processes
    from scanonce.ui.commands.clip_screen import ClipScreen
    from scanonce.ui.config import read_config

    models = read_config(config).models
    read = read_captions(captions, videos=videos, benchmark=benchmark)
    held = read_captions(validation, videos=videos, benchmark=benchmark) if validation else None
    processes = meet_processes(models.device)
    out, work = output_folders(out, work)
    console = new_console(quiet=processes.index > 0)  # one of several processes prints
    try:
        with ClipScreen(console) as screen:
            screen.show_missing([read, held] if held else [read])
            run = finetune(
                recipe,
                encoder or models.encoder,
                read,
                out,
                work=work,
                validation=held,
                processes=processes,
                resume=resume,
                minutes_cap=minutes_cap or float("inf"),
                command=shlex.join(["scanonce", *sys.argv[1:]]),
                callbacks=screen,
            )
    finally:
        processes.close()
    screen.show_end(run, out, work)
