"""How the answers of `search` and of `saved run` are printed."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from scanonce.ui.commands.found import Actions
from scanonce.ui.console import new_console, note, print_json, verbatim
from scanonce.ui.safe_text import visible
from scanonce.ui.views import (
    coverage_text,
    good_text,
    match_word,
    moments_table,
    result_json,
    timings_text,
)

if TYPE_CHECKING:
    from scanonce.search.filters import Filter
    from scanonce.search.result import Coverage, SearchResult

TopOption = Annotated[
    int | None,
    typer.Option(min=1, max=1000, help="Moments to show.", show_default="as in config.toml"),
]


NO_ACTIONS = Actions()


def as_rows(result: "SearchResult") -> None:
    """Print moments for other programs, one a line: path, start, end, match and probability between tabs.

    Nothing is wrapped, and a name has no tab or line break in it (`safe_text.visible`).
    """
    for moment in result.moments:
        start, end = moment.span.start_seconds, moment.span.end_seconds
        values = (f"{start:.3f}", f"{end:.3f}", match_word(moment.probability))
        print(visible(moment.path), *values, f"{moment.probability:.4f}", sep="\t")


@dataclass(frozen=True, slots=True)
class ShowResult:
    """How answers are printed."""

    index_dir: Path
    only: "Filter"
    only_good: bool
    as_json: bool
    actions: Actions = NO_ACTIONS

    def __call__(self, result: "SearchResult", covered: "Coverage | None" = None) -> None:
        """Print an answer, with how much of the library matches if that was computed."""
        if self.only_good:
            result = replace(result, moments=result.moments[: result.num_good])
        console = new_console()
        if self.as_json:
            shown = None if self.only.passes_all else self.only
            print_json(result_json(result, shown, covered))
        elif not self.actions.replaces_output:
            if console.is_terminal:
                self.as_text(result, covered, console)
            else:
                for text in filter(None, (self._nothing_searched(result), *result.notes)):
                    note(text)
                as_rows(result)
        self.actions(self.index_dir, result)

    def as_text(self, result: "SearchResult", covered: "Coverage | None", console: Console) -> None:
        """Print an answer for people."""
        if nothing := self._nothing_searched(result):
            console.print(verbatim(nothing), highlight=False, soft_wrap=True)
        else:
            heading = good_text(result.moments, is_full=covered is not None)
            if covered is not None:
                heading += f"; {coverage_text(covered)}"
            console.print(heading, highlight=False, soft_wrap=True)
        for text in result.notes:
            console.print(f"[dim]{verbatim(text)}[/]", highlight=False, soft_wrap=True)
        if result.moments:
            console.print(moments_table(result.moments))
        console.print(f"[dim]{timings_text(result)}[/]")

    def _nothing_searched(self, result: "SearchResult") -> str | None:
        """Return why there was nothing to search; None if there was something."""
        if result.num_searchable == 0:
            return (
                f"The index {self.index_dir} is empty. "
                f"Next: scanonce index FOLDER --index {self.index_dir}"
            )
        if result.num_videos == 0:
            return "No video passes this filter, so nothing was searched."
        return None
