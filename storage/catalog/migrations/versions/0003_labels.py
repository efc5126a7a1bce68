"""Labels of videos, for filters."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """Add a table; a label is removed with its video."""
    op.create_table(
        "labels",
        sa.Column(
            "video_id", sa.Integer, sa.ForeignKey("videos.id", ondelete="CASCADE"), primary_key=True
        ),
        sa.Column("folded", sa.String, primary_key=True),
        sa.Column("label", sa.String, nullable=False),
    )
    op.create_index("ix_labels_folded", "labels", ["folded"])
