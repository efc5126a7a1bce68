"""Converting checkpoints for a person at a terminal."""

from pathlib import Path

from rich.console import Console
from rich.markup import escape

from scanonce.models.clip4clip.convert import (
    DEFAULT_TOKENIZER,
    convert_to_folder,
    convert_to_published,
)
from scanonce.models.clip4clip.head_files import read_head_config
from scanonce.models.clip4clip.heads import SEQUENTIAL_KINDS
from scanonce.storage.errors import EncoderError

RE_RANKS = "which re-ranks what a search finds; clips are pooled by their mean"


def run_convert(
    source: Path,
    out: Path,
    *,
    tokenizer: str | None = None,
    max_frames: int = 12,
    console: Console | None = None,
) -> None:
    """Converts in the direction that ``source`` shows: a file is a published checkpoint, a folder an encoder.

    Raises:
        EncoderError: there is nothing at ``source``, or it cannot be converted.
    """
    console = console or Console()
    with console.status(f"converting {escape(str(source))}"):
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
    console.print(escape(f"wrote {out}: {_what_it_is(out)}"), soft_wrap=True, highlight=False)


def _what_it_is(out: Path) -> str:
    """What to do with what was written."""
    if out.is_file():
        return "a checkpoint for CLIP4Clip's own code"
    command = f"scanonce index VIDEOS --encoder {out}"
    if not (out / "head.json").exists():
        return f"an encoder, clips are pooled by their mean; {command}"
    kind = read_head_config(out).kind
    if kind in SEQUENTIAL_KINDS:
        return f"an encoder with a {kind} head, which pools clips; {command}"
    return f"an encoder with a {kind} head, {RE_RANKS}; {command}"
