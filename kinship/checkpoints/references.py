"""Model references: how people name a model, and where it then lies.

    org/name   org/name@revision   folder   file.safetensors   any of these + "+" + an adapter

or a mapping with ``path``, ``revision``, ``subfolder`` and ``adapter``.
"""

import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePath

from kinship.checkpoints.hub import fetch_snapshot
from kinship.errors import InvalidConfig, ReferenceNotFound

# Names on the Hub begin with a letter or digit, so that ./model and ../model are never asked for there.
HUB_ID = re.compile(r"(?P<repo>\w[\w.-]*/\w[\w.-]*)(@(?P<revision>[\w./-]+))?")
_ADDRESS = re.compile(r"https?://(?:huggingface\.co|hf\.co)/(\w[\w.-]*/\w[\w.-]*)")
_KEYS = ("path", "revision", "subfolder", "adapter")

# From repository, revision and subfolder to the folder of a snapshot: see `kinship.checkpoints.hub.fetch_snapshot`.
Fetch = Callable[[str, str | None, str | None], Path]


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


def listed(models: Iterable[str | Path]) -> list[str | Path]:
    """``models`` as a list, whatever they come as; raises `InvalidConfig` for one model in place of several."""
    if isinstance(models, str | bytes | os.PathLike):
        raise InvalidConfig(f"{os.fsdecode(models)!r} is one model; a list of models was expected.", hint="Write [it].")
    return list(models)


def parse_reference(given: str | Path | Mapping[str, object], root: Path = Path()) -> Reference:
    """Parse a reference; what exists under ``root`` as it is written is a path, whatever it looks like.

    So a folder ``base+adapter`` or ``model@v1`` is found before anything is split at ``+`` or ``@``, and of several
    ``+`` that one counts whose left side exists. Raises `InvalidConfig`.

    >>> parse_reference("org/name@v1+org/adapter")
    Reference(path='org/name', revision='v1', subfolder=None, adapter=Reference(path='org/adapter', revision=None, \
subfolder=None, adapter=None))
    """
    if isinstance(given, Mapping):
        return _parse_mapping(given, root)
    text = str(given)
    if not text.strip():
        raise InvalidConfig("A model reference is empty.", hint="Give a folder, a .safetensors file or a Hub id.")
    if os.path.exists(_local(text, root)):
        return Reference(text)
    if "+" in text:
        path, adapter = _split_at_adapter(text, root)
        parsed = parse_reference(path, root)
        return Reference(parsed.path, parsed.revision, None, _parse_adapter(adapter, root))
    match = HUB_ID.fullmatch(text)
    if match and match["revision"]:
        return Reference(match["repo"], match["revision"])
    return Reference(text)


def resolved(reference: Reference, root: Path = Path()) -> Reference:
    """A reference that means the same from any folder: local paths in full, its adapter's too; Hub ids as they are."""
    path = _local(reference.path, root)
    return replace(
        reference,
        path=os.path.realpath(path) if os.path.exists(path) else reference.path,
        adapter=reference.adapter and resolved(reference.adapter, root),
    )


def locate(reference: Reference, root: Path = Path(), fetch: Fetch | None = None) -> Path:
    """The local folder or file of a reference (without its adapter), downloaded from the Hub where it is a Hub id.

    Only safetensors, configs and tokenizer files are downloaded, or what ``fetch`` brings in place of `fetch_snapshot`.
    Raises `ReferenceNotFound` or `InvalidConfig`.
    """
    if reference.subfolder and (os.path.isabs(reference.subfolder) or ".." in Path(reference.subfolder).parts):
        raise InvalidConfig(
            f"The subfolder {reference.subfolder!r} leads out of {reference.path}.",
            hint="Give a path inside the model's folder, without '..'.",
        )
    path = _local(reference.path, root)
    if not os.path.exists(path):  # unlike Path.exists, no error for a name that is too long
        if not HUB_ID.fullmatch(reference.path):
            address = _ADDRESS.match(reference.path)
            raise ReferenceNotFound(
                f"There is no model at {reference.path!r}: {path.absolute()} does not exist.",
                hint=f"Addresses are not read; that model's id on the Hub is {address[1]}."
                if address
                else "Give a folder that holds config.json and *.safetensors, one .safetensors file, or a Hub id.",
            )
        path = (fetch or fetch_snapshot)(reference.path, reference.revision, reference.subfolder)
    elif reference.revision:
        raise InvalidConfig(
            f"{reference.path} is a local path, which has no revision {reference.revision!r}.",
            hint="Leave the revision out; for a Hub model of that name, work in another folder.",
        )
    if reference.subfolder:
        folder = path / reference.subfolder
        if not folder.is_dir() or not folder.resolve().is_relative_to(path.resolve()):
            raise ReferenceNotFound(
                f"{reference.path} has no subfolder {reference.subfolder!r} with a model in it.",
                hint="Check its spelling; a link to a folder elsewhere does not count.",
            )
        return folder
    return path


def local_places(references: Iterable[str | Path], root: Path = Path()) -> list[Path]:
    """The files and folders on this machine that ``references`` name, adapters too; raises nothing for what is none."""
    parts: list[Reference] = []
    for given in references:
        try:
            parsed = parse_reference(given, root)
        except InvalidConfig:  # whoever opens it will tell
            continue
        parts += [parsed, *([parsed.adapter] if parsed.adapter else [])]
    return [place for place in (_local(part.path, root) for part in parts) if os.path.lexists(place)]


def _parse_mapping(given: Mapping[str, object], root: Path) -> Reference:
    unknown = sorted(str(key) for key in given if key not in _KEYS)
    if unknown or "path" not in given:
        raise InvalidConfig(
            f"A model reference has the keys {', '.join(map(str, given)) or 'none'}; "
            + (f"unknown: {', '.join(unknown)}." if unknown else "path is missing."),
            hint=f"Use path, and where needed: {', '.join(_KEYS[1:])}.",
        )
    texts = {key: given.get(key) for key in ("path", "revision", "subfolder")}
    for key, value in texts.items():
        if not isinstance(value, str | Path) and (value is not None or key == "path"):
            raise InvalidConfig(f"{key} of a model reference must be text, not {value!r}.", hint="Put it in quotes.")
    parsed = parse_reference(str(texts["path"]), root)
    adapter = given.get("adapter")
    if adapter is not None and parsed.adapter is not None:
        raise InvalidConfig(
            f"{given['path']!r} names an adapter already, and adapter names {adapter!r}.",
            hint="One adapter can be put on a base; merge the other into it first.",
        )
    if texts["revision"] and parsed.revision:
        raise InvalidConfig(f"{given['path']!r} names a revision already, and revision names {texts['revision']!r}.")
    return Reference(
        parsed.path,
        str(texts["revision"]) if texts["revision"] else parsed.revision,
        str(texts["subfolder"]) if texts["subfolder"] else None,
        parsed.adapter if adapter is None else _parse_adapter(adapter, root),
    )


def _parse_adapter(given: object, root: Path) -> Reference:
    if not isinstance(given, str | Path | Mapping):
        raise InvalidConfig(f"adapter must be a model reference, not {given!r}.", hint="Give a folder or a Hub id.")
    adapter = parse_reference(given, root)
    if adapter.adapter is not None:
        raise InvalidConfig(
            f"{adapter} names two adapters, {adapter.path} and {adapter.adapter.path}.",
            hint="One adapter can be put on a base; merge the other into it first.",
        )
    return adapter


def _split_at_adapter(text: str, root: Path) -> tuple[str, str]:
    """Split at the last ``+`` whose left side exists, or at the first ``+`` where none does."""
    places = [index for index, letter in enumerate(text) if letter == "+"]
    existing = [place for place in places if text[:place] and os.path.exists(_local(text[:place], root))]
    place = existing[-1] if existing else places[0]
    return text[:place], text[place + 1 :]


def _local(text: str, root: Path) -> Path:
    return root / os.path.expanduser(text)  # unlike Path.expanduser, no error for a user that is not there


def short_names(ids: Sequence[str]) -> list[str]:
    """The last part of each id where that tells them apart, more where it must.

    >>> short_names(["runs/a/model", "runs/b/model"]), short_names(["x/math", "x/code.safetensors"])
    (['a/model', 'b/model'], ['math', 'code'])
    """
    parts = [PurePath(id.removesuffix(".safetensors")).parts or (id,) for id in ids]
    for length in range(1, max(map(len, parts), default=1) + 1):
        names = ["/".join(part[-length:]) for part in parts]
        if len(set(names)) == len(names):
            return names
    return list(ids)
