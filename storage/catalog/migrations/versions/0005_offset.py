"""The time of the first frame after the start of the file, which players count from."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    """Add a column; of videos that are indexed already it is unknown, so 0."""
    column = sa.Column("offset_seconds", sa.Double, nullable=False, server_default="0")
    op.add_column("videos", column)
