"""Version 3: a database may hold several runs, told apart by name; the version is kept in a table of its own.

A ledger of version 2 was a SQLite file with one run, whose name becomes "run".
"""

import sqlalchemy as sa
from alembic import op

revision = "3"
down_revision = "2"

NEW = """
CREATE TABLE run (id INTEGER NOT NULL, name VARCHAR NOT NULL, config VARCHAR NOT NULL, digests VARCHAR NOT NULL,
    tasks VARCHAR NOT NULL, conditions VARCHAR NOT NULL, budget INTEGER, gram BLOB NOT NULL, stopped VARCHAR,
    PRIMARY KEY (id), UNIQUE (name));
CREATE TABLE individual (run INTEGER NOT NULL, id VARCHAR NOT NULL, position INTEGER NOT NULL,
    generation INTEGER NOT NULL, batch INTEGER NOT NULL, role VARCHAR NOT NULL, recipe VARCHAR NOT NULL,
    identity VARCHAR, kinship DOUBLE, twin VARCHAR, PRIMARY KEY (run, id), UNIQUE (run, position),
    FOREIGN KEY(run) REFERENCES run (id), FOREIGN KEY(run, twin) REFERENCES individual (run, id));
CREATE TABLE parent (run INTEGER NOT NULL, child VARCHAR NOT NULL, place INTEGER NOT NULL, parent VARCHAR NOT NULL,
    PRIMARY KEY (run, child, place), FOREIGN KEY(run, child) REFERENCES individual (run, id),
    FOREIGN KEY(run, parent) REFERENCES individual (run, id));
CREATE TABLE genome (run INTEGER NOT NULL, individual VARCHAR NOT NULL, tensors INTEGER NOT NULL,
    coefficients BLOB NOT NULL, PRIMARY KEY (run, individual),
    FOREIGN KEY(run, individual) REFERENCES individual (run, id));
CREATE TABLE stored (run INTEGER NOT NULL, individual VARCHAR NOT NULL, place INTEGER NOT NULL,
    digest VARCHAR NOT NULL, "row" BLOB NOT NULL, PRIMARY KEY (run, individual), UNIQUE (run, place),
    FOREIGN KEY(run, individual) REFERENCES individual (run, id));
CREATE TABLE block (run INTEGER NOT NULL, individual VARCHAR NOT NULL, split VARCHAR NOT NULL, place INTEGER NOT NULL,
    count INTEGER NOT NULL, results BLOB NOT NULL, PRIMARY KEY (run, individual, split, place),
    FOREIGN KEY(run, individual) REFERENCES individual (run, id));
CREATE TABLE score (run INTEGER NOT NULL, individual VARCHAR NOT NULL, split VARCHAR NOT NULL, value DOUBLE NOT NULL,
    stderr DOUBLE, complete BOOLEAN NOT NULL, facts VARCHAR NOT NULL, PRIMARY KEY (run, individual, split),
    FOREIGN KEY(run, individual) REFERENCES individual (run, id));
CREATE TABLE failure (run INTEGER NOT NULL, individual VARCHAR NOT NULL, stage VARCHAR NOT NULL, kind VARCHAR NOT NULL,
    message VARCHAR NOT NULL, traceback VARCHAR NOT NULL, attempts INTEGER NOT NULL,
    PRIMARY KEY (run, individual, stage), FOREIGN KEY(run, individual) REFERENCES individual (run, id));
CREATE TABLE event (id INTEGER NOT NULL, run INTEGER NOT NULL, time VARCHAR NOT NULL, seconds DOUBLE NOT NULL,
    name VARCHAR NOT NULL, facts VARCHAR NOT NULL, PRIMARY KEY (id), FOREIGN KEY(run) REFERENCES run (id));
"""

COPY = {
    "run": ("id, name", "id, 'run'", "config, digests, tasks, conditions, budget, gram, stopped"),
    "individual": ("run", "1", "id, position, generation, batch, role, recipe, identity, kinship, twin"),
    "parent": ("run", "1", "child, place, parent"),
    "genome": ("run", "1", "individual, tensors, coefficients"),
    "stored": ("run", "1", 'individual, place, digest, "row"'),
    "block": ("run", "1", "individual, split, place, count, results"),
    "score": ("run", "1", "individual, split, value, stderr, complete, facts"),
    "failure": ("run", "1", "individual, stage, kind, message, traceback, attempts"),
    "event": ("run", "1", "id, time, seconds, name, facts"),
}


def upgrade() -> None:
    """Copy every row under the key of its run."""
    existing = sa.inspect(op.get_bind()).get_table_names()
    for name in COPY:
        if name in existing:  # a ledger in which nothing was begun may lack some
            op.rename_table(name, f"old_{name}")
    for statement in filter(str.strip, NEW.split(";")):
        op.execute(statement)
    for name, (keys, values, rest) in COPY.items():
        if name in existing:
            op.execute(f"INSERT INTO {name} ({keys}, {rest}) SELECT {values}, {rest} FROM old_{name}")
    for name in reversed(COPY):
        if name in existing:
            op.drop_table(f"old_{name}")
