"""The card of a fine-tuned encoder: on what it was trained, how, and what came of it."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

from scanonce.storage.files import write_whole
from scanonce.training.clip.run import Run, Validated

_CARD = """\
# {name}, fine-tuned

A dual encoder of pictures and sentences in the plain `transformers` format, with the head "{head}" that makes one
vector of a clip's frames. It was fine-tuned from `{encoder}` as CLIP4Clip does (arXiv 2104.08860). Use it by its
folder: `scanonce index VIDEOS --encoder {name}`.

    {command}

## Data

{num_clips:,} clips with {num_captions:,} captions to train on, {held_out} held out. At most {max_frames} frames of a
clip, {fps:g} a second.

## Training

{steps:,} steps of {batch} clips ({processes}), {minutes:.1f} minutes on {device}. Symmetric InfoNCE; in an epoch a clip
comes once, with one of its captions, so that captions of one clip are never negatives of each other.

| setting | value |
|---|---|
{recipe}

## Figures

{figures}

![Curves](curves.png)
"""

_NO_FIGURES = "Nothing was held out, so there are none. The last weights were kept."

_FIGURES = """\
Retrieval among the {num_clips:,} held-out clips, by their {num_captions:,} captions; ties count against us.
{kept}

| | R@1 | R@5 | R@10 | MdR | MnR | MRR |
|---|---|---|---|---|---|---|
{rows}"""


def write_card(run: Run, encoder: str, folder: Path, command: str) -> None:
    """Writes README.md.

    Args:
        run: at its end.
        encoder: what it started from.
        folder: of the checkpoint.
        command: that made it.
    """
    held = "nothing" if run.validation is None else f"{len(run.validation):,} clips"
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


def _figures(run: Run) -> str:
    if run.first is None or run.kept is None:
        return _NO_FIGURES
    chosen = "with the best MRR of captions to clips" if run.recipe.keep == "best" else "at the end"
    kept = f"The weights {chosen} were kept, those of step {run.kept.step:,}"
    chosen_by = (
        ", chosen by these same figures, which they flatter a little."
        if run.recipe.keep == "best"
        else "."
    )
    return _FIGURES.format(
        num_clips=run.kept.num_clips,
        num_captions=run.kept.num_captions,
        kept=kept + chosen_by,
        rows="\n".join(
            [
                *_rows("before", run.first),
                *_rows("after", run.kept),
            ]
        ),
    )


def _rows(when: str, found: Validated) -> list[str]:
    rows = []
    for query, figures in (("captions to clips", found.videos), ("clips to captions", found.texts)):
        shares = (f"{figures[name]:.3f}" for name in ("R@1", "R@5", "R@10"))
        ranks = (f"{figures[name]:.1f}" for name in ("MdR", "MnR"))
        cells = " | ".join([*shares, *ranks, f"{figures['MRR']:.3f}"])
        rows.append(f"| {query}, {when} | {cells} |")
    return rows
