"""`scanonce convert`."""

from pathlib import Path
from typing import Annotated

import typer

from scanonce.storage.errors import EncoderError
from scanonce.training.clip.recipe import Recipe
from scanonce.ui.console import new_console, verbatim


def convert(
    source: Annotated[
        Path, typer.Argument(help="Published checkpoint (a file), or an encoder (a folder).")
    ],
    out: Annotated[Path, typer.Argument(help="The folder, or the file, to write.")],
    tokenizer: Annotated[
        str | None,
        typer.Option(
            help="Hub id, or folder with the tokenizer.json of a CLIP.",
            show_default="openai/clip-vit-base-patch32",
        ),
    ] = None,
    max_frames: Annotated[
        int, typer.Option(min=1, help="Number of frames a clip had when the head was trained.")
    ] = Recipe.max_frames,
) -> None:
    """Convert a published CLIP4Clip checkpoint into an encoder, or an encoder into such a checkpoint."""
    from scanonce.models.clip4clip.convert import (
        DEFAULT_TOKENIZER,
        convert_to_folder,
        convert_to_published,
    )

    console = new_console()
    with console.status(f"converting {verbatim(source)}"):
        if source.is_dir():
            convert_to_published(source, out)
        elif source.exists():
            tokenizer = tokenizer or DEFAULT_TOKENIZER
            convert_to_folder(source, out, tokenizer=tokenizer, max_frames=max_frames)
        else:
            raise EncoderError(
                f"there is nothing at {source}: give a published CLIP4Clip checkpoint, such as pytorch_model.bin.4, "
                "or the folder of an encoder."
            )
    console.print(verbatim(f"wrote {out}: {_usage(out)}"), soft_wrap=True, highlight=False)


def _usage(out: Path) -> str:
    """Return the kind of a result and its next step."""
    from scanonce.models.clip4clip.head_files import read_head_config
    from scanonce.models.clip4clip.heads import SEQUENTIAL_KINDS

    if out.is_file():
        return "a checkpoint for CLIP4Clip's own code"
    command = f"scanonce index VIDEOS --encoder {out}"
    if not (out / "head.json").exists():
        return f"an encoder, clips are pooled by their mean; {command}"
    kind = read_head_config(out).kind
    if kind in SEQUENTIAL_KINDS:
        return f"an encoder with a {kind} head, which pools clips; {command}"
    return (
        f"an encoder with a {kind} head, which re-ranks the moments of a search; clips are pooled by their mean; "
        f"{command}"
    )
