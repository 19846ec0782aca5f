"""Steps that make the tables of a ledger, or bring those of an older version to the present one, in place.

A new ledger takes them all, so there is one way to the present tables. A step is a module in ``versions``, see
`search.migrations.versions.v1_baseline`; `search.ledger.tables.VERSION` names the last.
"""

from pathlib import Path

from alembic.migration import MigrationContext
from alembic.operations import Operations
from alembic.script import ScriptDirectory
from sqlalchemy import Connection

VERSION_TABLE = "ledger_version"
STEPS = Path(__file__).parent  # its folder `versions`


def upgrade(connection: Connection, version: str | None) -> None:
    """Take every step from ``version`` (None: no tables yet) to the newest, in the caller's transaction.

    Raises `sqlalchemy.exc.DBAPIError` for tables that are not what ``version`` says.
    """
    script = ScriptDirectory(str(STEPS))
    context = MigrationContext.configure(connection, opts={"version_table": VERSION_TABLE})
    with Operations.context(context):
        for step in reversed(list(script.iterate_revisions("head", version or "base"))):
            if step.revision != version:
                step.module.upgrade()
    context.stamp(script, "head")


def known_versions() -> list[str]:
    """Every version there was, the first one first."""
    return [step.revision for step in reversed(list(ScriptDirectory(str(STEPS)).walk_revisions()))]
