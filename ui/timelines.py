"""Timelines as XML for Final Cut and Resolve (FCPXML) and for Premiere (FCP 7 XML), and markers for Resolve.

All three have one frame rate and begin at 01:00:00:00, as the edit lists of `ui.export` do.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from xml.etree.ElementTree import Element, SubElement, indent, tostring

from scanonce.storage.records import Span
from scanonce.ui.export import RECORD_START_HOURS, Pick, rate_of
from scanonce.ui.safe_text import one_line
from scanonce.ui.timecode import FrameRate
from scanonce.ui.views import match_word, percent_text

_COLOURS: Mapping[str, str] = {"strong": "Green", "fair": "Yellow", "weak": "Red"}
_NO_COLOUR = "Blue"
_MOST_CHARS = 200  # of a name of a marker


@dataclass(frozen=True, slots=True)
class _Cut:
    """A moment on the timeline."""

    pick: Pick
    at: int
    """Its first frame on the timeline, from 0."""
    length: int
    """Frames of the timeline, one at least."""

    @property
    def label(self) -> str:
        return one_line(self.pick.label)[:_MOST_CHARS] or "moment"

    @property
    def note(self) -> str:
        """How good the match is; empty if no query found it."""
        probability = self.pick.probability
        if probability is None:
            return ""
        return f"{match_word(probability)} match, {percent_text(probability)}"


def _cuts(picks: Sequence[Pick], rate: FrameRate) -> list[_Cut]:
    """Put moments one after another."""
    cuts: list[_Cut] = []
    at = 0
    for pick in picks:
        length = max(
            1, rate.frames(pick.played.end_seconds) - rate.frames(pick.played.start_seconds)
        )
        cuts.append(_Cut(pick, at, length))
        at += length
    return cuts


# ---------------------------------------------------------------- markers


def to_resolve_markers(
    picks: Sequence[Pick], *, title: str = "Scanonce", rate: FrameRate | None = None
) -> str:
    """Return markers over the timeline of the edit list, as DaVinci Resolve imports them ("Timeline Markers from EDL").

    Args:
        picks: in the order of the timeline.
        title: title of the list.
        rate: frame rate of the timeline. Default: that of the first moment's video.
    """
    rate = rate or rate_of(picks)
    start = rate.first_frame_of_hour(RECORD_START_HOURS)
    lines = [
        f"TITLE: {one_line(title)[:70]}",
        f"FCM: {'DROP FRAME' if rate.drop else 'NON-DROP FRAME'}",
        "",
    ]
    for number, cut in enumerate(_cuts(picks, rate), 1):
        codes = [rate.timecode(start + cut.at), rate.timecode(start + cut.at + 1)] * 2
        probability = cut.pick.probability
        colour = _NO_COLOUR if probability is None else _COLOURS[match_word(probability)]
        lines += [
            f"{number:03}  001      V     C        {' '.join(codes)}",
            f" |C:ResolveColor{colour} |M:{cut.label.replace('|', '/')} |D:{cut.length}",
            "",
        ]
    return "\n".join(lines)


# ---------------------------------------------------------------- FCPXML


def to_fcpxml(
    picks: Sequence[Pick], *, title: str = "Scanonce", rate: FrameRate | None = None
) -> str:
    """Return a project in FCPXML 1.9: a clip with a marker for each moment, with the sound of its file.

    Offsets and lengths are whole frames of the timeline; a clip starts at a whole frame of its own video, counted from
    the timecode of the file.

    Args:
        picks: in the order of the timeline.
        title: name of the project.
        rate: frame rate of the timeline. Default: that of the first moment's video.
    """
    rate = rate or rate_of(picks)
    root = Element("fcpxml", version="1.9")
    resources = SubElement(root, "resources")
    size = (picks[0].width, picks[0].height) if picks else (0, 0)
    _format(resources, "r1", rate, *size)
    cuts = _cuts(picks, rate)
    assets = _assets(resources, cuts, rate)
    library = SubElement(root, "library")
    project = SubElement(
        SubElement(library, "event", name=one_line(title)), "project", name=one_line(title)
    )
    start = rate.first_frame_of_hour(RECORD_START_HOURS)
    sequence = SubElement(
        project,
        "sequence",
        format="r1",
        tcStart=_time(start, rate),
        tcFormat=_counting(rate),
        duration=_time(sum(cut.length for cut in cuts), rate),
    )
    spine = SubElement(sequence, "spine")
    for cut in cuts:
        own = cut.pick.rate
        first = _time(cut.pick.start_frame + own.frames(cut.pick.played.start_seconds), own)
        clip = SubElement(
            spine,
            "asset-clip",
            ref=assets[cut.pick.path],
            name=one_line(cut.pick.path.name),
            offset=_time(start + cut.at, rate),
            start=first,
            duration=_time(cut.length, rate),
            tcFormat=_counting(own),
        )
        if cut.pick.audio:
            clip.set("audioRole", "dialogue")
        marker = SubElement(clip, "marker", start=first, duration=_time(1, rate), value=cut.label)
        if cut.note:
            marker.set("note", cut.note)
    return _document(root, "fcpxml")


def _assets(resources: Element, cuts: Sequence[_Cut], rate: FrameRate) -> dict[Path, str]:
    """Add the file of each video with its format; return their names by path."""
    names: dict[Path, str] = {}
    for path, own_cuts in _by_path(cuts).items():
        pick = own_cuts[0].pick
        own = pick.rate
        number = 2 * len(names) + 2
        names[path] = f"r{number + 1}"
        _format(resources, f"r{number}", own, pick.width, pick.height)
        # the length that was decoded, or as far as a clip of whole frames of the timeline goes
        ends = [
            own.frames(cut.pick.played.start_seconds) / own.fps + cut.length / rate.fps
            for cut in own_cuts
        ]
        whole = own.frames(pick.duration_seconds + pick.offset_seconds)
        asset = SubElement(
            resources,
            "asset",
            id=names[path],
            name=one_line(path.name),
            start=_time(pick.start_frame, own),
            duration=_time(max(whole, *(-(-end * own.fps // 1) for end in ends)), own),
            hasVideo="1",
            format=f"r{number}",
        )
        if pick.audio:
            asset.set("hasAudio", "1")
            asset.set("audioSources", str(len(pick.audio)))
            asset.set("audioChannels", str(pick.channels))
        SubElement(asset, "media-rep", kind="original-media", src=path.as_uri())
    return names


def _format(resources: Element, name: str, rate: FrameRate, width: int, height: int) -> None:
    shape = SubElement(resources, "format", id=name, frameDuration=_time(1, rate))
    if width and height:
        shape.set("width", str(width))
        shape.set("height", str(height))


def _time(frames: int, rate: FrameRate) -> str:
    """Return a number of frames in seconds, as FCPXML writes it: exact.

    >>> _time(2, FrameRate(Fraction(30000, 1001), 30)), _time(50, FrameRate(Fraction(25), 25))
    ('1001/15000s', '2s')
    """
    seconds = Fraction(frames) / rate.fps
    whole = seconds.denominator == 1
    return f"{seconds.numerator}s" if whole else f"{seconds.numerator}/{seconds.denominator}s"


def _counting(rate: FrameRate) -> str:
    return "DF" if rate.drop else "NDF"


# ---------------------------------------------------------------- Premiere


def to_premiere(
    picks: Sequence[Pick], *, title: str = "Scanonce", rate: FrameRate | None = None
) -> str:
    """Return a sequence in FCP 7 XML (xmeml 5), which Premiere and Resolve import: clips, sound, markers.

    In and out of a clip count frames of the timeline from the start of its file. Sound has a track for each channel.

    Args:
        picks: in the order of the timeline.
        title: name of the sequence.
        rate: frame rate of the timeline. Default: that of the first moment's video.
    """
    rate = rate or rate_of(picks)
    cuts = _cuts(picks, rate)
    root = Element("xmeml", version="5")
    sequence = SubElement(root, "sequence", id="sequence-1")
    _texts(sequence, name=one_line(title), duration=sum(cut.length for cut in cuts))
    _rate(sequence, rate)
    _timecode(sequence, rate, rate.first_frame_of_hour(RECORD_START_HOURS))
    media = SubElement(sequence, "media")
    video = SubElement(media, "video")
    shape = SubElement(SubElement(video, "format"), "samplecharacteristics")
    _rate(shape, rate)
    if picks:
        _texts(shape, width=picks[0].width, height=picks[0].height)
    files: dict[Path, str] = {}
    pictures = SubElement(video, "track")
    for number, cut in enumerate(cuts, 1):
        item = _clip_item(pictures, cut, rate, number, 0)
        _file(item, cut.pick, rate, files)
        _links(item, number, cut.pick.channels)
    audio = SubElement(media, "audio")
    for channel in range(1, max((cut.pick.channels for cut in cuts), default=0) + 1):
        track = SubElement(audio, "track")
        for number, cut in enumerate(cuts, 1):
            if channel <= cut.pick.channels:
                item = _clip_item(track, cut, rate, number, channel)
                SubElement(item, "file", id=files[cut.pick.path])
                _texts(SubElement(item, "sourcetrack"), mediatype="audio", trackindex=channel)
                _links(item, number, cut.pick.channels)
    for cut in cuts:
        marker = SubElement(sequence, "marker")
        _texts(marker, name=cut.label, comment=cut.note)
        SubElement(marker, "in").text = str(cut.at)
        SubElement(marker, "out").text = str(cut.at + cut.length)
    return _document(root, "xmeml")


def _clip_item(track: Element, cut: _Cut, rate: FrameRate, number: int, channel: int) -> Element:
    """Add a clip to a track; channel 0 is the picture."""
    pick = cut.pick
    item = SubElement(track, "clipitem", id=_item(number, channel))
    _texts(item, name=one_line(pick.path.name), enabled="TRUE", duration=_whole(cut, rate))
    _rate(item, rate)
    first = rate.frames(pick.played.start_seconds)
    _texts(item, start=cut.at, end=cut.at + cut.length)
    SubElement(item, "in").text = str(first)
    SubElement(item, "out").text = str(first + cut.length)
    return item


def _whole(cut: _Cut, rate: FrameRate) -> int:
    """Return the length of the file of a clip in frames of the timeline."""
    played: Span = cut.pick.played
    whole = rate.frames(cut.pick.duration_seconds + cut.pick.offset_seconds)
    return max(whole, rate.frames(played.start_seconds) + cut.length)


def _file(item: Element, pick: Pick, rate: FrameRate, files: dict[Path, str]) -> None:
    """Add the file of a clip: the whole of it where it is named first."""
    if pick.path in files:
        SubElement(item, "file", id=files[pick.path])
        return
    files[pick.path] = f"file-{len(files) + 1}"
    file = SubElement(item, "file", id=files[pick.path])
    own = pick.rate
    uri = pick.path.as_uri().replace("file://", "file://localhost", 1)
    _texts(file, name=one_line(pick.path.name), pathurl=uri)
    _rate(file, own)
    _texts(file, duration=own.frames(pick.duration_seconds + pick.offset_seconds))
    _timecode(file, own, pick.start_frame)
    media = SubElement(file, "media")
    shape = SubElement(SubElement(media, "video"), "samplecharacteristics")
    _texts(shape, width=pick.width, height=pick.height)
    if pick.channels:
        _texts(SubElement(media, "audio"), channelcount=pick.channels)


def _links(item: Element, number: int, channels: int) -> None:
    """Tie the picture and the sound of a moment together."""
    for channel in range(channels + 1) if channels else ():
        link = SubElement(item, "link")
        kind = "audio" if channel else "video"
        _texts(link, linkclipref=_item(number, channel), mediatype=kind, trackindex=channel or 1)


def _item(number: int, channel: int) -> str:
    return f"clipitem-{number}-{channel}"


def _rate(parent: Element, rate: FrameRate) -> None:
    ntsc = "TRUE" if rate.fps.denominator > 1 else "FALSE"
    _texts(SubElement(parent, "rate"), timebase=rate.timebase, ntsc=ntsc)


def _timecode(parent: Element, rate: FrameRate, frame: int) -> None:
    code = SubElement(parent, "timecode")
    _rate(code, rate)
    _texts(code, string=rate.timecode(frame), frame=frame, displayformat=_counting(rate))


def _texts(parent: Element, **texts: str | int) -> None:
    """Add an element for each text."""
    for name, text in texts.items():
        SubElement(parent, name).text = str(text)


# ---------------------------------------------------------------- documents


def _by_path(cuts: Sequence[_Cut]) -> dict[Path, list[_Cut]]:
    videos: dict[Path, list[_Cut]] = {}
    for cut in cuts:
        videos.setdefault(cut.pick.path, []).append(cut)
    return videos


def _document(root: Element, kind: str) -> str:
    indent(root)
    text = tostring(root, encoding="unicode")
    return f'<?xml version="1.0" encoding="UTF-8"?>\n<!DOCTYPE {kind}>\n{text}\n'
