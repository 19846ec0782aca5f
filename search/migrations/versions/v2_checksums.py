"""Version 2: ledgers in files have a checksum of every row."""

import sqlalchemy as sa
from alembic import op

revision = "2"
down_revision = "1"


def upgrade() -> None:
    """Make their table; whoever takes the steps notes those of the rows that are there."""
    op.create_table(
        "checksum",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("run", sa.Integer, sa.ForeignKey("run.id"), nullable=False),
        sa.Column("of", sa.String, nullable=False),
        sa.Column("checksum", sa.BigInteger, nullable=False),
    )
