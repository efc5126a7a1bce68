"""Which neighbours among the results look alike and share one card."""

from collections.abc import Sequence

from scanonce.search.looks import Look

ALIKE = 0.95
"""Correlation of grey levels (`search.looks`) from which on two pictures count as the same to a person who looks at
cards: copies, bursts and shots of a fixed camera have more, neighbouring shots of one scene less."""


def fold_alike(
    looks: Sequence[Look | None], divider: int | None = None, least: float = ALIKE
) -> list[int | None]:
    """Fold neighbours that look alike: for each moment the position of the one it is folded into, or None.

    Args:
        looks: of a picture of each moment, in their order; None: unknown, never folded.
        divider: position of the first moment below the divider: nothing is folded across it.
        least: correlation of pictures that are folded.
    """
    leaders: list[int | None] = []
    leader = 0
    for position, look in enumerate(looks):
        first = looks[leader]
        is_alike = (
            position not in (0, divider)
            and look is not None
            and first is not None
            and float((look * first).mean()) >= least
        )
        leaders.append(leader if is_alike else None)
        if not is_alike:
            leader = position
    return leaders
