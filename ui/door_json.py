"""The results of `ui.service` as JSON for programs (schema: docs/api.md). Pure functions."""

from collections.abc import Mapping, Sequence
from typing import Any

from scanonce.search.filters import filter_json
from scanonce.search.localise import Curve
from scanonce.search.saved import SavedSearch
from scanonce.storage.records import Line, Video
from scanonce.ui.fact_text import video_json
from scanonce.ui.jobs import Job
from scanonce.ui.service import Answered
from scanonce.ui.views import result_json


def answer_json(answered: Answered) -> dict[str, Any]:
    """Return an answer, as `scanonce search --json` prints it."""
    only = None if answered.only.passes_all else answered.only
    return result_json(answered.result, only, answered.covered)


def videos_json(
    videos: Sequence[Video], labels: Mapping[int, Sequence[str]], count: int
) -> dict[str, Any]:
    """Return a page of at most ``count`` videos, and the last id if there may be more."""
    return {
        "videos": [video_json(each, labels.get(each.video_id, ())) for each in videos],
        "next_after": videos[-1].video_id if len(videos) == count else None,
    }


def line_json(line: Line) -> dict[str, Any]:
    """Return a line of a transcript."""
    return {
        "track": line.track,
        "start_seconds": round(line.start_seconds, 3),
        "end_seconds": round(line.end_seconds, 3),
        "text": line.text,
        "confidence": round(line.confidence, 3),
        "language": line.language,
    }


def curve_json(curve: Curve) -> dict[str, Any]:
    """Return the scores of the pieces of a video, and the times between the pieces: one more than the scores."""
    return {
        "edges_seconds": [round(float(each), 3) for each in curve.edges_seconds],
        "scores": [round(float(each), 6) for each in curve.scores],
    }


def saved_json(saved: SavedSearch, num_new: int, problem: str | None) -> dict[str, Any]:
    """Return a saved search, as `scanonce saved list --json` prints it."""
    return {
        "name": saved.name,
        "query": saved.query,
        "filter": filter_json(saved.only),
        "created": saved.created.isoformat(),
        "last_looked": saved.looked_at.isoformat() if saved.looked_at else None,
        "new": num_new,
        "problem": problem,
    }


def run_json(job: Job | None) -> dict[str, Any]:
    """Return the state of a run of the indexer; ``{"state": "none"}`` if there was none."""
    if job is None:
        return {"state": "none"}
    return {
        "state": job.state,
        "folders": [str(path) for path in job.paths],
        "started_at": job.started_at.isoformat(),
        "doing": job.doing,
        "videos_done": job.videos_done,
        "videos_total": job.videos_total,
        "share": round(job.share, 4),
        "seconds_left": None if job.seconds_left is None else round(job.seconds_left, 1),
        "error": job.error,
    }
