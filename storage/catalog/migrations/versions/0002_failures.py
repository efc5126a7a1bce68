"""The output of a decoder that failed, and the number of failures that may pass."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Add two columns; earlier failures count as certain to fail again."""
    op.add_column("videos", sa.Column("detail", sa.String))
    op.add_column("videos", sa.Column("transient_failures", sa.Integer))
