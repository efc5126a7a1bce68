"""What several commands say about an index before they use it."""

from typing import TYPE_CHECKING

from scanonce.ui.console import note
from scanonce.ui.views import INEXACT_TIMES

if TYPE_CHECKING:
    from scanonce.library import Library


def note_inexact_times(library: "Library") -> None:
    """Say once, on the standard error output, that some times of an index may be wrong."""
    manifest = library.manifest
    if manifest is not None and not manifest.exact_times:
        note(f"{INEXACT_TIMES}.")
