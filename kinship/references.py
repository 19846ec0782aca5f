"""Model references: how people name a model, and where it then lies.

    org/name   org/name@revision   folder   file.safetensors   any of these + "+" + an adapter

or a mapping with ``path``, ``revision``, ``subfolder`` and ``adapter``.
"""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from kinship.errors import InvalidConfig, ReferenceNotFound
from kinship.hub import fetch_snapshot

_HUB_ID = re.compile(r"(?P<repo>[\w.-]+/[\w.-]+)(@(?P<revision>[\w./-]+))?")
_KEYS = {"path", "revision", "subfolder", "adapter"}


@dataclass(frozen=True)
class Reference:
    """A parsed reference: ``path`` is a local path or a Hub id; ``adapter`` goes on top of it."""

    path: str
    revision: str | None = None
    subfolder: str | None = None
    adapter: "Reference | None" = None

    def __str__(self) -> str:
        text = self.path + (f"@{self.revision}" if self.revision else "")
        text += f":{self.subfolder}" if self.subfolder else ""
        return f"{text}+{self.adapter}" if self.adapter else text


def parse_reference(given: str | Path | Mapping[str, object], root: Path = Path()) -> Reference:
    """Parse a reference; what exists under ``root`` as it is written is a path, whatever it looks like.

    >>> parse_reference("org/name@v1+org/adapter")
    Reference(path='org/name', revision='v1', subfolder=None, adapter=Reference(path='org/adapter', revision=None, \
subfolder=None, adapter=None))
    """
    if isinstance(given, Mapping):
        unknown = sorted(given.keys() - _KEYS)
        if unknown or "path" not in given:
            raise InvalidConfig(
                f"A model reference has the keys {sorted(given)}; path is needed, and {unknown or 'nothing'} unknown.",
                hint=f"Use: {', '.join(sorted(_KEYS))}.",
            )
        parsed = parse_reference(str(given["path"]), root)
        adapter = given.get("adapter")
        return Reference(
            parsed.path,
            str(given["revision"]) if given.get("revision") else parsed.revision,
            str(given["subfolder"]) if given.get("subfolder") else None,
            parse_reference(adapter, root) if isinstance(adapter, str | Path | Mapping) else parsed.adapter,
        )
    text = str(given)
    if os.path.exists(_local(text, root)):
        return Reference(text)
    if "+" in text:
        path, _, adapter_text = text.partition("+")
        parsed = parse_reference(path, root)
        return Reference(parsed.path, parsed.revision, None, parse_reference(adapter_text, root))
    match = _HUB_ID.fullmatch(text)
    if match and match["revision"]:
        return Reference(match["repo"], match["revision"])
    return Reference(text)


def locate(reference: Reference, root: Path = Path()) -> Path:
    """The local folder or file of a reference (without its adapter), downloaded from the Hub where it is a Hub id.

    Only safetensors, configs and tokenizer files are downloaded. Raises `ReferenceNotFound`.
    """
    path = _local(reference.path, root)
    if not os.path.exists(path):  # unlike Path.exists, no error for a name that is too long
        if not _HUB_ID.fullmatch(reference.path):
            raise ReferenceNotFound(
                f"There is no model at {reference.path!r}: {path.absolute()} does not exist.",
                hint="Give a folder that holds config.json and *.safetensors, one .safetensors file, or a Hub id.",
            )
        path = fetch_snapshot(reference.path, reference.revision, reference.subfolder)
    elif reference.revision:
        raise InvalidConfig(
            f"{reference.path} is a local path, which has no revision {reference.revision!r}.",
            hint="Leave the revision out, or give the Hub id.",
        )
    if reference.subfolder:
        path = path / reference.subfolder
        if not path.is_dir():
            raise ReferenceNotFound(f"{reference.path} has no subfolder {reference.subfolder!r}.")
    return path


def _local(text: str, root: Path) -> Path:
    return root / os.path.expanduser(text)  # unlike Path.expanduser, no error for a user that is not there
