"""Saved searches."""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"


def upgrade() -> None:
    """Add a table."""
    op.create_table(
        "saved_searches",
        sa.Column("folded", sa.String, primary_key=True),
        sa.Column("name", sa.String, nullable=False),
        sa.Column("query", sa.String, nullable=False),
        sa.Column("filter", sa.String, nullable=False),
        sa.Column("created_at", sa.DateTime, nullable=False),
        sa.Column("looked_at", sa.DateTime),
        sa.Column("seen_video_id", sa.Integer, nullable=False),
    )
