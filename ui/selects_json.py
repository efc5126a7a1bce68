"""The selects as JSON for programs (schema: docs/api.md)."""

from typing import Any

from scanonce.storage.selects import Selects


def selects_json(selects: Selects) -> dict[str, Any]:
    """Return the selects, in the order of the cut."""
    return {
        "selects": [
            {
                "key": each.key,
                "video_id": each.video_id,
                "start_seconds": round(each.span.start_seconds, 3),
                "end_seconds": round(each.span.end_seconds, 3),
                "name": each.name,
                "note": each.note,
                "query": each.query,
                "probability": each.probability,
            }
            for each in selects
        ]
    }
