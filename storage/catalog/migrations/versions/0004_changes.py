"""Which videos have changed since when, so that a reader takes in what is new and no more."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"

# The highest number of all and one more. An index makes it a look-up, and as the row of the highest
# number is only ever given a higher one, no number is given twice.
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
    """Two tables more and the triggers that fill one; what was there before counts as unchanged."""
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
