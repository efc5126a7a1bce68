"""Facts that files state about their recording; existing videos have none until the next run of the indexer."""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"

# as in revision 0004: readers see that the video has changed
_NOTE = """
    INSERT INTO video_changes (video_id, number)
    VALUES (NEW.video_id, (SELECT coalesce(max(number), 0) + 1 FROM video_changes))
    ON CONFLICT (video_id) DO UPDATE SET number = excluded.number;
"""


def upgrade() -> None:
    """Add a table and the triggers that note its changes."""
    op.create_table(
        "facts",
        sa.Column(
            "video_id",
            sa.Integer,
            sa.ForeignKey("videos.id", ondelete="CASCADE"),
            primary_key=True,
        ),
        sa.Column("recorded_ns", sa.BigInteger),
        sa.Column("camera", sa.String),
        sa.Column("latitude", sa.Double),
        sa.Column("longitude", sa.Double),
        sa.Column("stated", sa.String, nullable=False),
        sa.Column("chapters", sa.String, nullable=False),
    )
    for event in ("INSERT", "UPDATE"):
        op.execute(
            f"CREATE TRIGGER facts_{event.lower()}_is_noted AFTER {event} ON facts BEGIN {_NOTE} END"
        )
