"""Ledgers of older versions are brought to the present one in place: all the steps in one transaction, or none."""

from pathlib import Path

from alembic.migration import MigrationContext
from alembic.operations import Operations
from alembic.script import ScriptDirectory
from sqlalchemy import Connection

VERSION_TABLE = "ledger_version"


def current_version(connection: Connection) -> str | None:
    """The version that a ledger says it has; None where it says nothing."""
    return _context(connection).get_current_revision()


def stamp(connection: Connection, version: str) -> None:
    """Write down which version the ledger has; there is no such step: `alembic.util.CommandError`."""
    _context(connection).stamp(_steps(), version)


def upgrade(connection: Connection, version: str) -> None:
    """Take every step from ``version`` to the newest. The caller's transaction holds them all."""
    context = _context(connection)
    with Operations.context(context):
        for step in reversed(list(_steps().iterate_revisions("head", version))):
            if step.revision != version:
                step.module.upgrade()
    context.stamp(_steps(), "head")


def known_versions() -> list[str]:
    """Every version there was, the first one first."""
    return [step.revision for step in reversed(list(_steps().walk_revisions()))]


def _steps() -> ScriptDirectory:
    return ScriptDirectory(str(Path(__file__).parent))


def _context(connection: Connection) -> MigrationContext:
    return MigrationContext.configure(connection, opts={"version_table": VERSION_TABLE})
