"""The models of a workspace: folders found, references remembered, and what each is."""

import hashlib
import json
from contextlib import suppress
from pathlib import Path
from typing import Any

from sqlalchemy import delete, select

from kinship.checkpoints.folder_files import find_file, read_config
from kinship.checkpoints.frame import frame_of
from kinship.checkpoints.opening import open_checkpoint
from kinship.checkpoints.outline import outlines
from kinship.errors import MalformedCheckpoint
from service.answers.served import ModelFacts, ModelTensor, ServedModel, ServedModels
from service.http.backend import Backend
from service.http.references import require_reference
from service.jobs.errors import Conflict, NotFound
from service.jobs.table import ModelRow

LONG = 200  # characters of a fact that is told by its hash


def list_models(backend: Backend) -> ServedModels:
    """Every model found in the workspace, and every remembered reference."""
    workspace = backend.workspace
    found = {workspace.relative(folder): _folder(folder, workspace.relative(folder)) for folder in workspace.models()}
    with backend.jobs.session() as session:
        for reference in session.scalars(select(ModelRow.reference).filter_by(owner=backend.jobs.owner)):
            found.setdefault(
                reference, ServedModel(reference=reference, kind="registered", model_type=None, bytes=None)
            )
    return ServedModels(models=[found[reference] for reference in sorted(found)])


def remember(backend: Backend, reference: str) -> ServedModels:
    """Have a reference among the models; whether one of the Hub is there is asked when it is looked at.

    Raises `Refused`, `InvalidConfig`, and what `open_checkpoint` raises of what is here and no model.
    """
    require_reference(reference, backend.settings)
    with suppress(_OnTheHub):
        open_checkpoint(reference, root=backend.settings.folder, fetch=_on_the_hub).close()
    with backend.jobs.alone, backend.jobs.session() as session:
        session.merge(ModelRow(owner=backend.jobs.owner, reference=reference))
        session.commit()
    return list_models(backend)


def forget(backend: Backend, reference: str) -> None:
    """Have it there no more; no file is touched. Raises `NotFound`."""
    with backend.jobs.alone, backend.jobs.session() as session:
        mine = delete(ModelRow).filter_by(owner=backend.jobs.owner, reference=reference)
        gone = session.execute(mine.returning(ModelRow.reference)).all()
        session.commit()
    if not gone:
        raise NotFound(f"No reference {reference[:200]!r} is remembered.", hint="GET /api/v1/models lists them.")


def facts_of(backend: Backend, reference: str, *, identity: bool = False) -> ModelFacts:
    """What a model is. Cost: its headers, of a Hub model by range requests; ``identity`` reads all weights, once.

    Raises `Refused`, `Conflict` for the identity of weights that are not here, and what `open_checkpoint` raises.
    """
    require_reference(reference, backend.settings)
    root = backend.settings.folder
    with outlines(tokenizers=True) as hub, open_checkpoint(reference, root=root, fetch=hub.fetch) as model:
        if identity and not hub.weights_here:
            raise Conflict(f"The weights of {reference} are not on this disk.", hint="Download them first.")
        entries = sorted(model.tensors.items())
        return ModelFacts(
            reference=reference,
            model_type=model.config.get("model_type"),
            parameters=sum(entry.count for _, entry in entries),
            bytes=sum(entry.nbytes for _, entry in entries),
            dtypes=sorted({str(entry.dtype) for _, entry in entries}),
            identity=model.digest if identity else None,
            frame={name: _told(value) for name, value in sorted(frame_of(model).facts.items())},
            tensors=[
                ModelTensor(name=name, dtype=str(entry.dtype), shape=list(entry.shape)) for name, entry in entries
            ],
        )


def _folder(folder: Path, reference: str) -> ServedModel:
    try:
        file = find_file(folder, "config.json")
        config = read_config(file) if file is not None else {}
        size = sum(file.stat().st_size for file in folder.glob("*.safetensors"))
    except (OSError, MalformedCheckpoint):
        config, size = {}, None
    return ServedModel(reference=reference, kind="folder", model_type=config.get("model_type"), bytes=size)


class _OnTheHub(Exception):
    """Nothing is fetched to remember a name."""


def _on_the_hub(*_: object) -> Path:
    raise _OnTheHub


def _told(value: Any) -> Any:
    """A fact as plain data; a long one, such as a vocabulary, by a hash that tells it from others."""
    text = value if isinstance(value, str) else json.dumps(value, sort_keys=True, default=repr)
    if len(text) <= LONG:
        return json.loads(json.dumps(value, default=repr))
    return f"blake2b:{hashlib.blake2b(text.encode(), digest_size=12).hexdigest()}"
