"""Version 2: parents, genomes, results, failures and diary in tables of their own; scores beside their documents.

Version 1 kept neither the tasks' digests, so that its runs can be read but not gone on with, nor when what happened.
"""

import io
import json
import math
import zlib
from typing import Any

import numpy as np
import sqlalchemy as sa
from alembic import op

revision = "2"
down_revision = "1"

OLD = {
    "run": "id, config, digests, gram, stopped",
    "individual ORDER BY position": "id, position, generation, role, parents, recipe, genome, identity, kinship, error",
    "score": "individual, split, documents",
}

NEW = """
CREATE TABLE run (id INTEGER NOT NULL PRIMARY KEY, schema_version INTEGER NOT NULL, config VARCHAR NOT NULL,
    digests VARCHAR NOT NULL, tasks VARCHAR NOT NULL, conditions VARCHAR NOT NULL, budget INTEGER, gram BLOB NOT NULL,
    stopped VARCHAR);
CREATE TABLE individual (id VARCHAR NOT NULL PRIMARY KEY, position INTEGER NOT NULL UNIQUE,
    generation INTEGER NOT NULL, batch INTEGER NOT NULL, role VARCHAR NOT NULL, recipe VARCHAR NOT NULL,
    identity VARCHAR, kinship DOUBLE, twin VARCHAR REFERENCES individual (id));
CREATE TABLE parent (child VARCHAR NOT NULL REFERENCES individual (id), place INTEGER NOT NULL,
    parent VARCHAR NOT NULL REFERENCES individual (id), PRIMARY KEY (child, place));
CREATE TABLE genome (individual VARCHAR NOT NULL PRIMARY KEY REFERENCES individual (id), tensors INTEGER NOT NULL,
    coefficients BLOB NOT NULL);
CREATE TABLE stored (individual VARCHAR NOT NULL PRIMARY KEY REFERENCES individual (id),
    place INTEGER NOT NULL UNIQUE, digest VARCHAR NOT NULL, "row" BLOB NOT NULL);
CREATE TABLE block (individual VARCHAR NOT NULL REFERENCES individual (id), split VARCHAR NOT NULL,
    place INTEGER NOT NULL, count INTEGER NOT NULL, results BLOB NOT NULL, PRIMARY KEY (individual, split, place));
CREATE TABLE score (individual VARCHAR NOT NULL REFERENCES individual (id), split VARCHAR NOT NULL,
    value DOUBLE NOT NULL, stderr DOUBLE, complete BOOLEAN NOT NULL, facts VARCHAR NOT NULL,
    PRIMARY KEY (individual, split));
CREATE TABLE failure (individual VARCHAR NOT NULL REFERENCES individual (id), stage VARCHAR NOT NULL,
    kind VARCHAR NOT NULL, message VARCHAR NOT NULL, traceback VARCHAR NOT NULL, attempts INTEGER NOT NULL,
    PRIMARY KEY (individual, stage));
CREATE TABLE event (id INTEGER NOT NULL PRIMARY KEY, time VARCHAR NOT NULL, seconds DOUBLE NOT NULL,
    name VARCHAR NOT NULL, facts VARCHAR NOT NULL);
"""

FILLED = {
    "run": ("id", "schema_version", "config", "digests", "tasks", "conditions", "budget", "gram", "stopped"),
    "individual": ("id", "position", "generation", "batch", "role", "recipe", "identity", "kinship", "twin"),
    "parent": ("child", "place", "parent"),
    "genome": ("individual", "tensors", "coefficients"),
    "block": ("individual", "split", "place", "count", "results"),
    "score": ("individual", "split", "value", "stderr", "complete", "facts"),
    "failure": ("individual", "stage", "kind", "message", "traceback", "attempts"),
}


def upgrade() -> None:
    """Read the old tables whole, then write the new ones."""
    database = op.get_bind()
    runs, people, scores = (
        [dict(row._mapping) for row in database.execute(sa.text(f"SELECT {columns} FROM {source}"))]
        for source, columns in OLD.items()
    )
    for name in ("score", "individual", "run"):
        op.drop_table(name)
    for statement in filter(str.strip, NEW.split(";")):
        op.execute(statement)
    rows: dict[str, list[dict[str, Any]]] = {name: [] for name in FILLED}
    tensors = 0
    for run in runs:
        with np.load(io.BytesIO(run["gram"]), allow_pickle=False) as table:
            tensors = len(table["names"])
        config = json.loads(run["config"])
        config["strategy"].setdefault("name", "topk")
        tasks = sorted({task for score in scores for task in _unpack(score["documents"])})
        unknown = {task: {"metric": "", "digest": ""} for task in tasks}
        new = {"schema_version": 2, "config": json.dumps(config), "tasks": json.dumps(unknown), "conditions": "{}"}
        rows["run"].append(run | new | {"budget": None})
    for person in people:
        id = person["id"]
        rows["individual"].append({**person, "batch": person["generation"], "twin": None})
        rows["parent"] += [
            {"child": id, "place": place, "parent": parent}
            for place, parent in enumerate(json.loads(person["parents"]))
        ]
        genome = zlib.compress(person["genome"], 1)
        rows["genome"].append({"individual": id, "tensors": tensors, "coefficients": genome})
        if person["error"] is not None:
            failed = {"kind": "raised", "message": person["error"], "traceback": "", "attempts": 1}
            rows["failure"].append({"individual": id, "stage": "search", **failed})
    for score in scores:
        key = {"individual": score["individual"], "split": score["split"]}
        results = _unpack(score["documents"])
        count = sum(len(documents) for documents, _ in results.values())
        rows["block"].append(key | {"place": 0, "count": count, "results": score["documents"]})
        facts = _facts(results)
        estimate = {"value": facts["value"], "stderr": facts["stderr"]}
        rows["score"].append({**key, **estimate, "complete": True, "facts": json.dumps(facts)})
    for name, columns in FILLED.items():
        table = sa.table(name, *map(sa.column, columns))
        known = [{column: row[column] for column in columns} for row in rows[name]]
        if known:
            database.execute(table.insert(), known)


def _unpack(data: bytes) -> dict[str, list[list[float]]]:
    """By task, documents and their values."""
    found: dict[str, list[list[float]]] = json.loads(zlib.decompress(data))
    return found


def _facts(results: dict[str, list[list[float]]]) -> dict[str, Any]:
    """What exports tell of a score: the tasks' plain mean, and each task."""
    estimates, tasks = [], {}
    for task, (_, values) in results.items():
        sample = np.asarray(values, dtype=np.float64)
        error = float(sample.std(ddof=1) / math.sqrt(len(sample))) if len(sample) > 1 else math.nan
        estimates.append((float(sample.mean()), error))
        tasks[task] = {**_plain(*estimates[-1]), "documents": len(values), "digest": ""}
    mean = sum(value for value, _ in estimates) / len(estimates)
    stderr = math.sqrt(sum(error**2 for _, error in estimates)) / len(estimates)
    documents = sum(len(values) for _, values in results.values())
    return {**_plain(mean, stderr), "complete": True, "documents": documents, "tasks": tasks}


def _plain(value: float, stderr: float) -> dict[str, float | None]:
    return {"value": value, "stderr": None if math.isnan(stderr) else stderr}
