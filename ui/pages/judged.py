"""Feedback on the search page: the moments to find more or less like, as chips, kept in the address.

?q=a+red+car&more=7-61500-70000&less=3-0-4000    moments by `addresses.moment_key`
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

import streamlit as st

from scanonce.search.feedback import MOST_JUDGED
from scanonce.search.query import Like
from scanonce.storage.records import Video
from scanonce.ui.safe_text import shown_name
from scanonce.ui.views import clock, plain

Sign = Literal["more", "less"]
SIGNS: tuple[Sign, ...] = ("more", "less")
_KEY = re.compile(r"([0-9]{1,15})-([0-9]{1,15})-([0-9]{1,15})", re.ASCII)


@dataclass(frozen=True, slots=True)
class Judged:
    """The judged moments of the address, by `addresses.moment_key`."""

    more: Mapping[str, Like]
    less: Mapping[str, Like]

    def __bool__(self) -> bool:
        return bool(self.more or self.less)

    @property
    def pieces(self) -> tuple[tuple[Like, ...], tuple[Like, ...]]:
        """The picked pieces and the dismissed ones."""
        return tuple(self.more.values()), tuple(self.less.values())


def judged(videos: Mapping[int, Video]) -> Judged:
    """Read the address; what names no moment of these videos is ignored."""
    found: dict[Sign, dict[str, Like]] = {"more": {}, "less": {}}
    for sign in SIGNS:
        for key in st.query_params.get_all(sign):
            piece = _piece(key, videos)
            is_new = all(key not in each for each in found.values())
            if piece is not None and is_new and sum(map(len, found.values())) < MOST_JUDGED:
                found[sign][key] = piece
    return Judged(found["more"], found["less"])


def _piece(key: str, videos: Mapping[int, Video]) -> Like | None:
    numbers = _KEY.fullmatch(key)
    if numbers is None:
        return None
    video_id, start, end = (int(each) for each in numbers.groups())
    video = videos.get(video_id)
    if video is None or not start < end or start >= 1000 * video.duration_seconds:
        return None
    return Like(str(video.path), start / 1000, end / 1000)


def judge(sign: Sign, key: str) -> None:
    """Pick or dismiss a moment, or take that back if it is so already; for callbacks."""
    before = {each: st.query_params.get_all(each) for each in SIGNS}
    for each, keys in before.items():
        after = [other for other in keys if other != key]
        if each == sign and key not in keys:
            after.append(key)
        _set(each, after)
    st.session_state["page"] = 1


def forget_judged() -> None:
    """Take all judgements back; for callbacks."""
    for sign in SIGNS:
        _set(sign, [])


def _set(sign: Sign, keys: list[str]) -> None:
    if keys:
        st.query_params[sign] = keys
    else:
        st.query_params.pop(sign, None)


def chips(found: Judged) -> None:
    """Show the judged moments; a click takes one away."""
    if not found:
        return
    with st.container(horizontal=True, gap="small", key="judged"):
        for sign in SIGNS:
            for key, piece in (found.more if sign == "more" else found.less).items():
                st.button(
                    f"{sign} like {plain(_name(piece))}",
                    key=f"judged-{sign}-{key}",
                    icon=":material/close:",
                    help="Take away",
                    on_click=partial(judge, sign, key),
                )


def _name(piece: Like) -> str:
    return f"{shown_name(Path(piece.video))} {clock(piece.start_seconds or 0.0)}"
