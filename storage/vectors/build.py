"""Which files the next generation of the vector index gets, and how they are written.

A generation is *appended* to: new clips become a segment of the delta. It is *merged*: the delta goes into the base,
whose codes are extended. Or it is *rebuilt* from all live clips. Publishing it is in `storage.vectors.publish`.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from scanonce.storage.errors import IndexDirectoryError
from scanonce.storage.settings import StorageSettings
from scanonce.storage.vectors.codes import (
    CodedForm,
    coded_form,
    default_nprobe,
    extend_codes,
    factory,
    form_of,
    read_codes,
    write_codes,
)
from scanonce.storage.vectors.generation import (
    CODES,
    TUNING_QUERIES,
    Generation,
    GenerationInfo,
    TunedSettings,
    numbered,
)
from scanonce.storage.vectors.gpu import build_codes, searches_on_gpu
from scanonce.storage.vectors.ivfpq import IvfPqIndex
from scanonce.storage.vectors.list_fit import ListFit
from scanonce.storage.vectors.recall import num_affordable, tuned_settings
from scanonce.storage.vectors.rows import ClipRows, Ids
from scanonce.storage.vectors.segments import (
    Segment,
    link_file,
    link_segment,
    live_rows,
    num_kept,
    write_rows,
)

logger = logging.getLogger(__name__)

MAX_DEAD_SHARE = 0.2
"""Share of dead clips from which all is rebuilt: they cost memory and probes, a rebuild costs minutes at a million
clips."""

Step = Literal["append", "merge", "rebuild"]


def due_step(current: Generation, num_new: int, live: Ids, settings: StorageSettings) -> Step:
    """Return the step that is due when ``num_new`` clips are added to a generation."""
    base_live, delta_live = current.base.count(live), current.delta.count(live)
    clips = len(current.base) + len(current.delta)
    waiting = delta_live + num_new
    if clips - base_live - delta_live > MAX_DEAD_SHARE * clips:
        return "rebuild"
    form = _form(settings, base_live + waiting, current.info)
    if current.info.factory is None:
        return "rebuild" if form else "append"
    if form != form_of(current.info.factory):
        return "rebuild"
    # Merging into a small base is cheap and happens often.
    return "merge" if waiting > min(settings.fold_rows, base_live) else "append"


def _form(
    settings: StorageSettings, num_rows: int, current: GenerationInfo | None
) -> CodedForm | None:
    """Return the form of codes for this number of clips, ``None`` for exact search."""
    factory_now = current.factory if current else None
    if settings.kind == "flat":
        return None
    # An index with codes keeps some until it is rebuilt: clips may come and go around the threshold.
    if num_rows < settings.ivf_threshold and factory_now is None:
        return None
    # For the same reason plain codes stay until there are half as many clips as called for them.
    is_plain = factory_now is not None and form_of(factory_now) == "ivfpq"
    on_gpu = searches_on_gpu(settings.gpu_use)
    return coded_form(settings.kind, 2 * num_rows if is_plain else num_rows, gpu=on_gpu)


@dataclass(frozen=True)
class NextGeneration:
    """A generation that is being written."""

    folder: Path
    number: int
    current: Generation | None
    """The generation before."""
    fresh: ClipRows
    """Clips of new videos."""
    live: Ids
    settings: StorageSettings
    tuned_like: Generation | None
    """The generation that knows how the search was tuned: the one before, or one that this replaces."""

    def write(self) -> GenerationInfo:
        """Write all files but ``generation.json``."""
        if self.current is None:
            return self._rebuild([self.fresh])
        step = due_step(self.current, len(self.fresh), self.live, self.settings)
        if step == "append":
            return self._append(self.current)
        if step == "merge":
            return self._merge(self.current)
        segments = [live_rows(segment.rows, self.live) for segment in self.current.segments]
        return self._rebuild([*segments, self.fresh])

    def _append(self, current: Generation) -> GenerationInfo:
        """Add new clips to the delta; the base and all large segments stay."""
        delta = current.delta_segments
        keep = num_kept(delta, len(self.fresh))
        joined = [live_rows(segment.rows, self.live) for segment in delta[keep:]]
        segments = self._write_segments(
            current.path, [*current.base_segments, *delta[:keep]], [*joined, self.fresh]
        )
        if current.info.kind == "ivfpq":
            link_file(current.path / CODES, self.folder)
        self._keep_queries()
        return self._changed(current, segments=segments)

    def _merge(self, current: Generation) -> GenerationInfo:
        """Merge the delta into the base, whose lists and codec stay as long as they fit."""
        base = current.base_segments
        delta = [live_rows(segment.rows, self.live) for segment in current.delta_segments]
        added = write_rows(self.folder, "new_base", [*delta, self.fresh], self.fresh.dim)
        everything = [*(live_rows(segment.rows, self.live) for segment in base), added]
        try:
            codes = read_codes(str(current.path / CODES), mapped=False)
        except IndexDirectoryError as error:
            logger.warning("the vector index is trained again: %s", error)
            return self._rebuild(everything)
        fit = current.info.fit or ListFit.measured(codes, current.base)
        extend_codes(codes, added)
        fit = fit.extended(codes, added)
        if reason := fit.misfit():
            logger.info("the vector index is trained again: %s", reason)
            return self._rebuild(everything)
        write_codes(codes, str(self.folder / CODES))
        keep = num_kept(base, len(added))
        # Clips of dead videos stay: the codes identify their clips by position.
        joined = [segment.rows for segment in base[keep:]]
        segments = self._write_segments(current.path, base[:keep], [*joined, added])
        self._keep_queries()
        return self._changed(current, segments=segments, base_segments=len(segments), fit=fit)

    def _rebuild(self, parts: Sequence[ClipRows]) -> GenerationInfo:
        """Write one segment of all live clips, exact or IVF-PQ by their number."""
        name, dim = numbered(self.number), self.fresh.dim
        rows = write_rows(self.folder, name, parts, dim)
        # A rebuilt index goes by the number of clips alone.
        form = _form(self.settings, len(rows), None)
        info = GenerationInfo(
            kind="ivfpq" if form else "flat",
            dim=dim,
            segments={name: len(rows)},
            base_segments=1 if form else 0,
            factory=factory(rows, form) if form else None,
            nprobe=0,
            rescore_depth=self.settings.rescore_depth,
            fit=None,
            created=datetime.now(UTC),
            files={},
        )
        if form is None:
            return info
        codes = build_codes(rows, form, self.settings.gpu_use)
        write_codes(codes, str(self.folder / CODES))
        changes = {
            "nprobe": default_nprobe(codes.nlist),
            "fit": ListFit.measured(codes, rows),
            "tuned": self._tuned_again(codes, rows),
        }
        return info.model_copy(update=changes)

    def _tuned_again(self, codes: Any, rows: ClipRows) -> TunedSettings | None:
        """Tune the search of new codes by the queries of the last time, ``None`` if it was not tuned."""
        before = self.tuned_like.info.tuned if self.tuned_like else None
        queries = self.tuned_like.tuning_queries() if self.tuned_like else None
        if before is None or queries is None:
            return None
        index = IvfPqIndex(rows, codes, nprobe=before.nprobe, rescore_depth=before.rescore_depth)
        allowed = rows.mask(self.live)
        after = tuned_settings(
            index,
            queries[: num_affordable(len(queries), len(rows))],
            target_recall=before.target_recall,
            source=before.queries,
            allowed=None if allowed.all() else allowed,
        )
        logger.info(
            "the search is tuned to %d clips: nprobe %d, rescore depth %d, recall %.3f",
            len(rows),
            after.nprobe,
            after.rescore_depth,
            after.recall,
        )
        self._keep_queries()
        return after

    def _keep_queries(self) -> None:
        """Keep the queries of the tuning, if there was one, for the next time."""
        if self.tuned_like is not None and self.tuned_like.info.tuned is not None:
            link_file(self.tuned_like.path / TUNING_QUERIES, self.folder)

    def _write_segments(
        self, source: Path, kept: Sequence[Segment], parts: Sequence[ClipRows]
    ) -> dict[str, int]:
        """Link the segments to keep, write one of the parts after them; return their names and numbers of clips."""
        for segment in kept:
            link_segment(source, segment.name, self.folder)
        name = numbered(self.number)
        rows = write_rows(self.folder, name, parts, self.fresh.dim)
        return {segment.name: len(segment.rows) for segment in kept} | {name: len(rows)}

    def _changed(self, current: Generation, **changes: Any) -> GenerationInfo:
        changes |= {"rescore_depth": self.settings.rescore_depth, "created": datetime.now(UTC)}
        return current.info.model_copy(update=changes)
