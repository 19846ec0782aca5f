"""Version 1: what the first released program made. There is nothing before it to come from."""

revision = "1"
down_revision = None


def upgrade() -> None:
    """Nothing: a ledger without a version table is of version 1 or 2, and is told apart by its columns."""
