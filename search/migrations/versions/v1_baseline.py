"""Version 1: the tables that ledgers began with, written out: what `search.ledger.tables` has since is later steps."""

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "1"
down_revision = None


def upgrade() -> None:
    """Make them all."""
    op.create_table(
        "run",
        sa.Column("id", sa.Integer, primary_key=True),
        _text("name"),
        *map(_text, ("config", "digests", "tasks", "conditions")),
        sa.Column("budget", sa.Integer),
        _bytes("gram"),
        sa.Column("stopped", sa.String),
        sa.UniqueConstraint("name"),
    )
    op.create_table(
        "individual",
        sa.Column("run", sa.Integer, sa.ForeignKey("run.id"), primary_key=True),
        _key("id"),
        *map(_number, ("position", "generation", "batch")),
        *map(_text, ("role", "recipe")),
        sa.Column("identity", sa.String),
        sa.Column("kinship", sa.Double),
        sa.Column("twin", sa.String),
        sa.UniqueConstraint("run", "position"),
        _of("twin"),
    )
    _table("parent", _key("child"), _position_key(), _text("parent"), _of("child"), _of("parent"))
    _table("genome", _key("individual"), _number("tensors"), _bytes("coefficients"), _of("individual"))
    unique = sa.UniqueConstraint("run", "position")
    _table("stored", _key("individual"), _number("position"), _text("digest"), _bytes("row"), unique, _of("individual"))
    keys = (_key("individual"), _key("split"), _position_key())
    _table("block", *keys, _number("count"), _bytes("results"), _of("individual"))
    _table(
        "score",
        _key("individual"),
        _key("split"),
        sa.Column("value", sa.Double, nullable=False),
        sa.Column("stderr", sa.Double),
        sa.Column("complete", sa.Boolean, nullable=False),
        _text("facts"),
        _of("individual"),
    )
    words = map(_text, ("kind", "message", "traceback"))
    _table("failure", _key("individual"), _key("stage"), *words, _number("attempts"), _of("individual"))
    op.create_table(
        "event",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("run", sa.Integer, sa.ForeignKey("run.id"), nullable=False),
        _text("time"),
        sa.Column("seconds", sa.Double, nullable=False),
        *map(_text, ("name", "facts")),
    )


def _table(name: str, *parts: Any) -> None:
    op.create_table(name, sa.Column("run", sa.Integer, primary_key=True), *parts)


def _key(name: str) -> sa.Column[str]:
    return sa.Column(name, sa.String, primary_key=True)


def _position_key() -> sa.Column[int]:
    return sa.Column("position", sa.Integer, primary_key=True)


def _text(name: str) -> sa.Column[str]:
    return sa.Column(name, sa.String, nullable=False)


def _number(name: str) -> sa.Column[int]:
    return sa.Column(name, sa.Integer, nullable=False)


def _bytes(name: str) -> sa.Column[bytes]:
    return sa.Column(name, sa.LargeBinary, nullable=False)


def _of(column: str) -> sa.ForeignKeyConstraint:
    """``column`` holds the id of an individual of the same run."""
    return sa.ForeignKeyConstraint(["run", column], ["individual.run", "individual.id"])
