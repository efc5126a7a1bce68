"""The facts of videos in the catalogue: writing them, and which videos have none yet.

Filters compare the columns; everything else is in a text that `storage.records.Video` reads when it is asked for.
"""

import json
import unicodedata
from collections.abc import Mapping
from math import radians

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import ColumnElement, Connection, select
from sqlalchemy.dialects.sqlite import insert

from scanonce.storage.catalog.tables import FactsRow, VideoRow
from scanonce.storage.facts import Facts, facts_values

EARTH_KM = 6371.0
"""Mean radius of the earth."""

Near = tuple[float, float, float]
"""Latitude and longitude in degrees, and a distance in km."""


def put_facts(connection: Connection, facts: Mapping[int, Facts]) -> None:
    """Write the facts of videos, by id, over earlier ones."""
    for video_id, each in facts.items():
        values = facts_values(each)
        chapters = values.pop("chapters", [])
        latitude, longitude = each.place or (None, None)
        row = {
            "recorded_ns": None
            if each.recorded_at is None
            else round(each.recorded_at.timestamp() * 1e9),
            "camera": _folded(each.camera) or None,
            "latitude": latitude,
            "longitude": longitude,
            "stated": json.dumps(values),
            "chapters": json.dumps(chapters),
        }
        statement = insert(FactsRow).values(video_id=video_id, **row)
        connection.execute(statement.on_conflict_do_update(index_elements=["video_id"], set_=row))


def without_facts() -> ColumnElement[bool]:
    """Return the condition that the facts of a video were never read."""
    return VideoRow.id.not_in(select(FactsRow.video_id))


def shown_by(camera: str) -> ColumnElement[bool]:
    """Return the condition that make and model of the camera contain a text, whatever the case."""
    named = FactsRow.camera.contains(_folded(camera), autoescape=True)
    return VideoRow.id.in_(select(FactsRow.video_id).where(named))


def _folded(text: str) -> str:
    """Return a text as it is compared: whatever the case, accents composed, single spaces."""
    return unicodedata.normalize("NFC", " ".join(text.split()).casefold())


def ids_near(connection: Connection, near: Near) -> NDArray[np.int64]:
    """Return the ids of the videos that were recorded at most so far from a place."""
    latitude, longitude, km = near
    degrees = np.degrees(km / EARTH_KM) + 1e-6
    rows = connection.execute(
        select(FactsRow.video_id, FactsRow.latitude, FactsRow.longitude).where(
            FactsRow.latitude.between(latitude - degrees, latitude + degrees),
            FactsRow.longitude.is_not(None),
        )
    )
    ids, latitudes, longitudes = np.array([tuple(row) for row in rows], np.float64).reshape(-1, 3).T
    return ids[distance_km(latitude, longitude, latitudes, longitudes) <= km].astype(np.int64)


def distance_km(
    latitude: float,
    longitude: float,
    latitudes: NDArray[np.float64],
    longitudes: NDArray[np.float64],
) -> NDArray[np.float64]:
    """Return the distance from one place to others, all in degrees, on a sphere (haversine); ``[num_places]``.

    >>> float(distance_km(48.8577, 2.295, np.array([51.5007]), np.array([-0.1246]))[0].round())
    341.0
    """
    first, others = radians(latitude), np.radians(latitudes)
    over, across = np.sin((others - first) / 2), np.sin(np.radians(longitudes - longitude) / 2)
    half = over**2 + np.cos(first) * np.cos(others) * across**2
    return np.asarray(2 * EARTH_KM * np.arcsin(np.sqrt(np.clip(half, 0, 1))))
