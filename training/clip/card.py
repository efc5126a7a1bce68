"""The card of a fine-tuned encoder: its data, its training, and its figures."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

from scanonce.storage.files import write_whole
from scanonce.training.clip.run import ClipRun, Validated

_CARD = """\
# {name}, fine-tuned

A dual encoder of images and texts in the plain `transformers` format, with the head "{head}", which pools the frames of
a clip. It was fine-tuned from `{encoder}` as CLIP4Clip does it (arXiv 2104.08860). Use it by its folder:
`scanonce index VIDEOS --encoder {name}`.

    {command}

## Data

{num_clips:,} clips with {num_captions:,} captions to train on, {held_out} held out. At most {max_frames} frames of a
clip, {fps:g} a second.

## Training

{steps:,} steps of {batch} clips ({processes}), {minutes:.1f} minutes on {device}. Symmetric InfoNCE; in an epoch a clip
occurs once, with one of its captions, so captions of a clip are never negatives of each other.

| setting | value |
|---|---|
{recipe}

## Figures

{figures}

![Curves](curves.png)
"""

_NO_FIGURES = "There are none, since no clips were held out. The last weights were kept."

_FIGURES = """\
Retrieval among the {num_clips:,} held-out clips, by their {num_captions:,} captions; ties count against the encoder.
{kept}

| | R@1 | R@5 | R@10 | MdR | MnR | MRR |
|---|---|---|---|---|---|---|
{rows}"""


def write_card(run: ClipRun, encoder: str, folder: Path, command: str) -> None:
    """Write README.md.

    Args:
        run: run at its end.
        encoder: encoder that training started from.
        folder: folder of the checkpoint.
        command: command of the run.
    """
    held = "none" if run.validation is None else f"{len(run.validation):,} clips"
    settings = "\n".join(
        f"| {name.replace('_', ' ')} | {value} |" for name, value in asdict(run.recipe).items()
    )
    count = run.processes.count
    text = _CARD.format(
        name=folder.name.removeprefix(".").removesuffix(".part"),
        head=run.recipe.head,
        encoder=encoder,
        command=command or "(called from Python: `training.clip.finetune.finetune`)",
        num_clips=len(run.clips),
        num_captions=sum(len(captions) for captions in run.clips.captions),
        held_out=held,
        max_frames=run.recipe.max_frames,
        fps=run.recipe.fps,
        steps=run.at.step,
        batch=run.batch,
        processes="one process" if count == 1 else f"{count} processes",
        minutes=run.at.elapsed_seconds / 60,
        device=run.processes.device.type,
        recipe=settings,
        figures=_figures(run),
    )
    write_whole(folder / "README.md", lambda file: file.write(text.encode()))


def _figures(run: ClipRun) -> str:
    if run.first is None or run.kept is None:
        return _NO_FIGURES
    if run.recipe.keep == "best":
        chosen = "The weights with the best MRR of captions to clips"
        bias = ", chosen by these figures, which are therefore slightly optimistic."
    else:
        chosen, bias = "The last weights", "."
    return _FIGURES.format(
        num_clips=run.kept.num_clips,
        num_captions=run.kept.num_captions,
        kept=f"{chosen} were kept, those of step {run.kept.step:,}{bias}",
        rows="\n".join([*_rows("before", run.first), *_rows("after", run.kept)]),
    )


def _rows(when: str, found: Validated) -> list[str]:
    rows = []
    for query, figures in (("captions to clips", found.videos), ("clips to captions", found.texts)):
        shares = (f"{figures[name]:.3f}" for name in ("R@1", "R@5", "R@10"))
        ranks = (f"{figures[name]:.1f}" for name in ("MdR", "MnR"))
        cells = " | ".join([*shares, *ranks, f"{figures['MRR']:.3f}"])
        rows.append(f"| {query}, {when} | {cells} |")
    return rows
