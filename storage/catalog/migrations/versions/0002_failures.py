"""What a decoder said when it failed, and how often it did so in a way that may pass."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Two columns more; what failed before counts as sure to fail again."""
    op.add_column("videos", sa.Column("detail", sa.String))
    op.add_column("videos", sa.Column("transient_failures", sa.Integer))
