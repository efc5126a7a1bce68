"""Acts of a person in a component, taken over once each: see `Acts` in ``assets/elements.js``."""

from collections.abc import Mapping
from typing import Any

import streamlit as st


def acts_seen(key: str) -> int:
    """Return the number of the last act of a component that was taken over; its data must have it as ``seen``."""
    return int(st.session_state.get(f"{key}-acts-seen", 0))


def fresh_acts(key: str) -> list[Mapping[str, Any]]:
    """Return what was done in a component since the last call, in order; for its ``on_acts_change``."""
    seen = acts_seen(key)
    fresh: list[Mapping[str, Any]] = []
    sent = st.session_state[key].acts
    for each in sent if isinstance(sent, list) else []:
        match each:
            case [int(number), dict(act)] if number > seen:
                seen = number
                fresh.append(act)
            case _:
                continue
    st.session_state[f"{key}-acts-seen"] = seen
    return fresh
