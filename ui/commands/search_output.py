"""How the answers of `search` and of `saved run` are printed."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from scanonce.ui.console import new_console, print_json, verbatim
from scanonce.ui.views import coverage_text, good_text, moments_table, result_json, timings_text

if TYPE_CHECKING:
    from scanonce.search.filters import Filter
    from scanonce.search.result import Coverage, SearchResult

TopOption = Annotated[
    int | None,
    typer.Option(min=1, max=1000, help="Moments to show.", show_default="as in config.toml"),
]


@dataclass(frozen=True, slots=True)
class ShowResult:
    """How answers are printed."""

    index_dir: Path
    only: "Filter"
    only_good: bool
    as_json: bool

    def __call__(self, result: "SearchResult", covered: "Coverage | None" = None) -> None:
        """Print an answer, with how much of the library matches if that was computed."""
        if self.only_good:
            result = replace(result, moments=result.moments[: result.num_good])
        if self.as_json:
            shown = None if self.only.passes_all else self.only
            print_json(result_json(result, shown, covered))
        else:
            self.as_text(result, covered, new_console())

    def as_text(self, result: "SearchResult", covered: "Coverage | None", console: Console) -> None:
        """Print an answer for people."""
        if result.num_searchable == 0:
            console.print(
                f"The index {verbatim(self.index_dir)} is empty. "
                f"Next: scanonce index FOLDER --index {verbatim(self.index_dir)}",
                soft_wrap=True,
            )
        elif result.num_videos == 0:
            console.print("No video passes this filter, so nothing was searched.")
        else:
            heading = good_text(result.moments, is_full=covered is not None)
            if covered is not None:
                heading += f"; {coverage_text(covered)}"
            console.print(heading, highlight=False, soft_wrap=True)
        for note in result.notes:
            console.print(f"[dim]{verbatim(note)}[/]", highlight=False, soft_wrap=True)
        if result.moments:
            console.print(moments_table(result.moments))
        console.print(f"[dim]{timings_text(result)}[/]")
