"""The grid of moments: one card each, with a picture that shows the moment while the pointer moves over it."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import streamlit as st

from scanonce.storage.records import Moment, Reason, Recording
from scanonce.ui.pages.acts import acts_seen, fresh_acts
from scanonce.ui.pages.addresses import frames_url, moment_key, moment_url, thumb_url
from scanonce.ui.pages.components import no_callback, read_asset
from scanonce.ui.pages.judged import SIGNS, Sign
from scanonce.ui.reasons import reason_pieces
from scanonce.ui.recorded import wall_clock
from scanonce.ui.safe_text import encodable, shown_name
from scanonce.ui.views import (
    LESS_CERTAIN,
    clock,
    good_text,
    match_text,
    match_word,
    percent_text,
    span_text,
)

_grid = st.components.v2.component(
    "scanonce_grid",
    html='<p class="live" role="status"></p><ul class="grid"></ul>',
    css=read_asset("grid.css"),
    js=read_asset("elements.js", "grid.js"),
)


@dataclass(frozen=True, slots=True)
class Cards:
    """Texts of the cards of a grid, next to their moments."""

    query: str
    """For the addresses of the cards."""
    recordings: Mapping[int, Recording | None]
    """When the videos were recorded, by id."""
    leaders: Sequence[int | None] = ()
    """For each moment the position of the card it is folded into; None: it has its own. See `ui.folding.fold_alike`."""
    divider: int | None = None
    """Position of the first moment below the divider; None: there is no divider on this page."""
    alike: bool = False
    """Whether the probabilities are likenesses (`SearchEngine.similar`)."""


def moment_card(
    moment: Moment, query: str, *, alike: bool = False, recording: Recording | None = None
) -> dict[str, Any]:
    """Return the data of a moment's card.

    Args:
        moment: the moment.
        query: for the address of its page.
        alike: whether its probability is a likeness (`SearchEngine.similar`).
        recording: when its video was recorded; None: that is not known.
    """
    percent = percent_text(moment.probability)
    name = shown_name(moment.path)
    middle = moment.span.middle_seconds
    recorded = wall_clock(recording, moment.span.start_seconds)
    folder = shown_name(moment.path.parent) if moment.path.parent.name else ""
    return {
        "key": moment_key(moment),
        "href": moment_url(moment.video_id, moment.span, query),
        "name": name,
        "path": encodable(str(moment.path)),
        "where": " \u00b7 ".join(filter(None, (folder, recorded))),
        "span": span_text(moment.span),
        "at": f"{clock(moment.span.start_seconds)}  {moment.span.duration_seconds:.1f} s",
        "word": match_word(moment.probability),
        "match": f"{percent} alike" if alike else match_text(moment.probability),
        "picture": {"src": thumb_url(moment.video_id, middle), "alt": f"{name} at {clock(middle)}"},
        "frames": frames_url(moment.video_id, moment.span),
        "reasons": reason_chips(moment.reasons),
    }


def reason_chips(reasons: Sequence[Reason]) -> list[dict[str, Any]]:
    """Return the data of the chips that say why a moment is in an answer: its words, or its probability by images.

    A moment that was only seen has none: its match says the same.
    """
    if not any(reason.text for reason in reasons):
        return []
    return [
        {
            "channel": reason.channel,
            "value": "" if reason.text else percent_text(reason.value),
            "pieces": [[encodable(text), marked] for text, marked in reason_pieces(reason)],
        }
        for reason in reasons
    ]


def moment_grid(
    moments: Sequence[Moment],
    shown: Cards,
    *,
    key: str,
    picked: Collection[str],
    on_pick: Callable[[Moment, bool], None],
    on_judge: Callable[[Sign, str], None] | None = None,
) -> Moment | None:
    """Show moments as cards; return the one a person wants to open, else None.

    Args:
        moments: the moments of this page, in order.
        shown: what their cards say.
        key: key of this grid among those of the page.
        picked: the picked moments by `moment_key`; their boxes are checked.
        on_pick: called before the page runs again with each moment that was picked (True) or unpicked (False).
        on_judge: called with "more" or "less" and the key of a moment if a person wants others like it, or not; None:
            the cards have no such buttons.
    """
    cards = {moment_key(moment): moment for moment in moments}
    keys = list(cards)
    leaders = [None if each is None else keys[each] for each in shown.leaders]
    found = _grid(
        key=key,
        data={
            "cards": [
                moment_card(
                    moment,
                    shown.query,
                    alike=shown.alike,
                    recording=shown.recordings.get(moment.video_id),
                )
                for moment in cards.values()
            ],
            "leaders": leaders if len(leaders) == len(keys) else [None] * len(keys),
            "picks": [each for each in keys if each in picked],
            "seen": acts_seen(key),
            "label": "moments",
            "live": good_text(moments),
            "is_answer": on_judge is not None,
            "divider": shown.divider,
            "divider_text": LESS_CERTAIN,
            "can_judge": on_judge is not None,
        },
        on_acts_change=partial(take_picks, key, cards, on_pick),
        on_judge_change=partial(_take_judgement, key, tuple(cards), on_judge),
        on_open_change=no_callback,
    )
    return cards.get(str(found.open)) if found.open else None


def take_picks(
    key: str, shown: Mapping[str, Moment], on_pick: Callable[[Moment, bool], None]
) -> None:
    """Take over what was picked and unpicked in a grid: only moments that are shown can be."""
    for act in fresh_acts(key):
        moment = shown.get(str(act.get("key")))
        if moment is not None:
            on_pick(moment, bool(act.get("picked")))


def _take_judgement(
    key: str, shown: Sequence[str], on_judge: Callable[[Sign, str], None] | None
) -> None:
    value = st.session_state[key].judge
    if on_judge is None or not isinstance(value, Mapping):
        return
    moment = str(value.get("key"))
    for sign in SIGNS:
        if value.get("sign") == sign and moment in shown:
            on_judge(sign, moment)
