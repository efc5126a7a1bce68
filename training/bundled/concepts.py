"""Vectors of the encoder "concepts": its classes and the mean of everyday texts, embedded by its sentence model.

    python -m scanonce.training.bundled.concepts [FOLDER]

Takes a minute on one core. Sentence embeddings have a direction in common, which says nothing. So the mean of the
classes is taken from each class, and the mean of the text bank (`search.bank`) from each query: neither knows anything
of a library.
"""

from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer
from numpy.typing import NDArray
from safetensors.torch import save

from scanonce.models.encoders.concepts_recipe import (
    CLASS_VECTORS,
    CONCEPTS_FOLDER,
    TEXT_MEAN,
    VECTORS_FILE,
    class_texts,
)
from scanonce.models.sentences import SentenceModel, packed_files
from scanonce.models.vectors import unit
from scanonce.search.bank import bank


def make_vectors(
    classes: NDArray[np.float32], texts: NDArray[np.float32]
) -> dict[str, torch.Tensor]:
    """Return the tensors of the file.

    Args:
        classes: ``[1000, 384]`` embeddings of the classes.
        texts: ``[num_texts, 384]`` embeddings of everyday texts.
    """
    centred = unit(classes - classes.mean(axis=0))
    return {
        CLASS_VECTORS: torch.from_numpy(centred).to(torch.float16),
        TEXT_MEAN: torch.from_numpy(texts.mean(axis=0)),
    }


def main(
    folder: Annotated[Path, typer.Argument(help="Folder to write to.")] = CONCEPTS_FOLDER,
) -> None:
    """Write vectors.safetensors."""
    model = SentenceModel(packed_files(), torch.device("cpu"), torch.float32)
    tensors = make_vectors(model.embed(class_texts()), model.embed(bank()))
    path = folder / VECTORS_FILE.name
    path.write_bytes(save(tensors))
    typer.echo(f"{path}: {path.stat().st_size:,} bytes")


if __name__ == "__main__":
    typer.run(main)
