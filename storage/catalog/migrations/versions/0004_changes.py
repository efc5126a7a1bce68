"""The last change of each video, so that a reader reads only new ones."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"

# The number of a change is the highest one plus one; the index makes that a look-up. The row with the highest number
# only ever gets a higher one, so no number is used twice.
_NOTE = """
    INSERT INTO video_changes (video_id, number)
    VALUES ({video_id}, (SELECT coalesce(max(number), 0) + 1 FROM video_changes))
    ON CONFLICT (video_id) DO UPDATE SET number = excluded.number;
"""

_WHEN = {
    "videos_insert": ("INSERT ON videos", "", "NEW.id"),
    "videos_update": ("UPDATE ON videos", "", "NEW.id"),
    "videos_delete": ("DELETE ON videos", "", "OLD.id"),
    "files_insert": ("INSERT ON files", "WHEN NEW.video_id IS NOT NULL", "NEW.video_id"),
    "files_delete": ("DELETE ON files", "WHEN OLD.video_id IS NOT NULL", "OLD.video_id"),
    "files_leave": (
        "UPDATE OF path, video_id ON files",
        "WHEN OLD.video_id IS NOT NULL",
        "OLD.video_id",
    ),
    "files_come": (
        "UPDATE OF path, video_id ON files",
        "WHEN NEW.video_id IS NOT NULL",
        "NEW.video_id",
    ),
}


def upgrade() -> None:
    """Add two tables and the triggers that fill one of them; existing videos count as unchanged."""
    op.create_table(
        "video_changes",
        sa.Column("video_id", sa.Integer, primary_key=True),
        sa.Column("number", sa.BigInteger, nullable=False),
    )
    op.create_index("ix_video_changes_number", "video_changes", ["number"])
    op.create_table("lineage", sa.Column("stamp", sa.String, primary_key=True))
    for name, (event, condition, video_id) in _WHEN.items():
        note = _NOTE.format(video_id=video_id)
        op.execute(f"CREATE TRIGGER {name}_is_noted AFTER {event} {condition} BEGIN {note} END")
