"""The formats of exports: their names on the pages, and in commands and the HTTP API.

The command line imports this before anything else is loaded, so importing it costs nothing.
"""

from collections.abc import Mapping
from typing import Literal

Format = Literal["CSV", "SRT", "EDL", "OTIO", "FCPXML", "XML", "MARKERS"]
FORMATS: Mapping[Format, str] = {
    "CSV": "A table for spreadsheets",
    "SRT": "Subtitles that mark the moments; a zip for several videos",
    "EDL": "An edit list (CMX 3600) for editing programs",
    "OTIO": "An OpenTimelineIO timeline with markers",
    "FCPXML": "A project with markers for Final Cut and Resolve",
    "XML": "A sequence with markers for Premiere (FCP 7 XML)",
    "MARKERS": "Markers for the edit list, as Resolve imports them from an EDL",
}

ExportName = Literal["csv", "edl", "otio", "srt", "fcpxml", "xml", "markers"]
"""Names of the formats in lower case."""


def format_named(name: ExportName) -> Format:
    """Return the format that a command or a program asks for.

    >>> format_named("edl")
    'EDL'
    """
    (found,) = (each for each in FORMATS if each.lower() == name)
    return found
