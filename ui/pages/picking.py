"""Moments as cards that can be opened, and picked for the tray."""

from collections.abc import Callable, Mapping, Sequence

from scanonce.storage.records import Moment, Video
from scanonce.ui.folding import fold_alike
from scanonce.ui.pages import finding
from scanonce.ui.pages.addresses import moment_key, open_moment
from scanonce.ui.pages.grid import Cards, moment_grid
from scanonce.ui.pages.judged import Sign
from scanonce.ui.pages.tray import pick, select_of, selects, unpick


def picking_grid(
    moments: Sequence[Moment],
    query: str,
    *,
    key: str,
    label: str | None = None,
    on_judge: Callable[[Sign, str], None] | None = None,
    divider: int | None = None,
    alike: bool = False,
) -> None:
    """Show moments as cards that can be picked; a click on a card opens the page of its moment.

    Args:
        moments: the moments of this page, in order.
        query: for the addresses of the cards.
        key: key of this grid among those of the page.
        label: label of picked moments in exports. Default: the query.
        on_judge: see `grid.moment_grid`.
        divider: position of the first moment below the divider; None: there is no divider on this page.
        alike: whether their probabilities are likenesses.
    """
    stamp = finding.index_stamp()
    videos = finding.searchable_library(stamp).videos
    opened = moment_grid(
        moments,
        Cards(
            query,
            finding.recordings(stamp),
            fold_alike(finding.looks(moments, videos), divider),
            divider,
            alike,
        ),
        key=key,
        picked={each.key for each in selects()},
        on_pick=lambda moment, is_picked: take_pick(
            moment, is_picked, label or query, videos, alike=alike
        ),
        on_judge=on_judge,
    )
    if opened is not None:
        open_moment(opened.video_id, opened.span, query)


def take_pick(
    moment: Moment, is_picked: bool, query: str, videos: Mapping[int, Video], *, alike: bool = False
) -> None:
    """Pick or unpick a moment; for callbacks. A likeness is no probability: it is not kept."""
    if not is_picked:
        unpick(moment_key(moment))
    elif moment.video_id in videos:
        found = None if alike else moment
        pick(select_of(videos[moment.video_id], moment.span, query, found))
