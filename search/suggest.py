"""Queries to begin with: texts of the bank that stand out in a library.

A text stands out if it describes some clip far better than the bank does, and most other clips no better. So the
suggestions differ between libraries, and are about the special ones of this library's clips.
"""

import numpy as np

from scanonce.models.vectors import unit
from scanonce.search.bank import bank, first_queries
from scanonce.search.snapshot import Snapshot

_WIDEST = 0.6
"""Largest cosine of two suggestions, measured from the mean of the bank."""


def standing_out(snapshot: Snapshot, number: int) -> list[str]:
    """Return texts that stand out in a sample of the clips, best first, without near repetitions.

    Args:
        snapshot: the library.
        number: how many are wanted; three times as many are returned, since the caller checks them.
    """
    clips = snapshot.clips.sample()
    if not len(clips):
        return []
    texts = bank()
    sayable = frozenset(first_queries())
    rows = np.array([k for k, text in enumerate(texts) if text in sayable])
    embeddings = snapshot.judge.bank.embeddings[rows]
    evidence = np.stack([snapshot.judge.bank.evidence(text, clips) for text in embeddings])
    above = np.quantile(evidence, 0.98, axis=1)
    order = np.argsort(-above, kind="stable")
    centred = unit(embeddings - snapshot.judge.bank.embeddings.mean(axis=0))
    chosen: list[int] = []
    for k in order.tolist():
        if all(float(centred[k] @ centred[other]) < _WIDEST for other in chosen):
            chosen.append(k)
        if len(chosen) == 3 * number:
            break
    return [texts[rows[k]] for k in chosen]
