"""The files of a model's folder, trusted no further than need be: regular files inside it, JSON of a sane size."""

import json
import os
import re
import shutil
import stat
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from kinship.errors import MalformedCheckpoint

# Configs and indices of the largest models stay below a tenth of this.
MAX_JSON_BYTES = 32 << 20

# What a config says of the kind of a model, and in which form.
_FORMS: Mapping[str, tuple[type | tuple[type, ...], str]] = {
    "model_type": (str, "a name"),
    "architectures": ((str, list), "a list of names"),
    "text_config": (Mapping, "a mapping"),
    "auto_map": (Mapping, "a mapping"),
}

_HALF = re.compile(r"\\u[dD][89a-fA-F]")

MAX_COMPANION = 1 << 30
CARD_NAME, MAX_CARD = "README.md", 1 << 20


def find_file(folder: Path, name: str) -> Path | None:
    """The file ``name`` directly in ``folder``, None where there is none (a dangling link is none).

    Raises `MalformedCheckpoint` for what is no regular file (reading a pipe would never end) and for links that lead
    out of the folder; the Hub cache's own links to its blobs are fine.
    """
    file = folder / name
    try:
        mode = os.stat(file).st_mode
    except (FileNotFoundError, NotADirectoryError):
        return None
    if not stat.S_ISREG(mode):
        raise MalformedCheckpoint(f"{file} is not a file but {_kind(mode)}.", hint="Put the file itself there.")
    target = file.resolve()
    if not any(target.is_relative_to(place) for place in _places(folder.resolve())):
        raise MalformedCheckpoint(
            f"{file} is a link to {target}, outside the model's folder.",
            hint="Put the file itself into the folder, or give the folder it is in.",
        )
    return file


def read_json(file: Path, limit: int = MAX_JSON_BYTES) -> dict[str, Any]:
    """The JSON object in ``file``; raises `MalformedCheckpoint` where it is anything else, or too long."""
    size = file.stat().st_size
    if size > limit:
        raise MalformedCheckpoint(
            f"{file} has {size} bytes; at most {limit} were expected.", hint="Save the file again."
        )
    try:
        text = file.read_text(encoding="utf-8")
        content = json.loads(text)
        if _HALF.search(text):  # a rare escape: it may be half of a letter, which no file can hold
            json.dumps(content, ensure_ascii=False).encode()
    except (ValueError, RecursionError) as error:
        raise MalformedCheckpoint(f"{file} is not valid JSON: {error}.", hint="Save the file again.") from None
    if not isinstance(content, dict):
        raise MalformedCheckpoint(f"{file} holds no JSON object.", hint="Save the file again.")
    return content


def read_config(file: Path) -> dict[str, Any]:
    """The config.json ``file`` of a model. Raises as `read_json`, and where it says of which kind a model is, or of
    which parts, in a form that nobody could read.
    """
    config = read_json(file)
    for key, (kinds, expected) in _FORMS.items():
        value = config.get(key)
        names = value if isinstance(value, list) else []
        if value is not None and not (isinstance(value, kinds) and all(isinstance(name, str) for name in names)):
            raise MalformedCheckpoint(
                f"{file}: {key!r} is {str(value)[:100]}; {expected} was expected.", hint="Save the model again."
            )
    return config


def text_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """What ``config`` says of the language model, which is a part of a model of text and images.

    >>> text_config({"model_type": "both", "text_config": {"model_type": "text"}})["model_type"]
    'text'
    """
    return {**config, **(config.get("text_config") or {})}


def read_text(folder: Path, name: str, limit: int = MAX_JSON_BYTES, *, strict: bool = False) -> str | None:
    """The text of a file directly in ``folder``, at most ``limit`` characters of it; None where there is none.

    What is no UTF-8 is replaced, or, if ``strict``, `MalformedCheckpoint`.
    """
    file = find_file(folder, name)
    if file is None:
        return None
    try:
        with open(file, encoding="utf-8", errors="strict" if strict else "replace") as stream:
            return stream.read(limit)
    except UnicodeDecodeError as error:
        raise MalformedCheckpoint(f"{file} is no text in UTF-8: {error}.", hint="Save it again.") from None
    except OSError as error:
        raise MalformedCheckpoint(f"{file} cannot be read: {error.strerror}.", hint="Save it again.") from None


def front_matter(folder: Path) -> Mapping[str, Any]:
    """The YAML at the head of the model card in ``folder``; nothing where there is none that can be read."""
    from kinship.safe_yaml import InvalidYaml, load_yaml

    head, *rest = (read_text(folder, CARD_NAME, MAX_CARD) or "").split("---\n", 2)
    try:
        content = load_yaml(rest[0]) if not head and len(rest) == 2 else None
    except InvalidYaml:
        return {}
    return content if isinstance(content, Mapping) else {}


def companions(folder: Path, patterns: Iterable[str]) -> tuple[list[Path], dict[str, str]]:
    """The files directly in ``folder`` whose names match ``patterns`` and that may be copied, sorted; and by name why
    others may not, since what is copied may be published.

    Copied are regular files inside the folder, and the Hub cache's links to its own blobs.
    """
    names = {file.name for pattern in patterns for file in folder.glob(pattern)}
    found, left_out = [], {}
    for name in sorted(names):
        try:
            file = find_file(folder, name)
        except (MalformedCheckpoint, OSError):
            file = None
        reason = _refusal(folder, name, file)
        if reason is None and file is not None:
            found.append(file)
        else:
            left_out[name] = reason or "not to be read"
    return found, left_out


def copy_regular(file: Path, target: Path) -> None:
    """Copy what `companions` has found; raises `OSError` where it has become anything but a regular file meanwhile."""
    source = os.open(file.resolve(), os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    with open(source, "rb") as reader, open(target, "xb") as writer:
        if not stat.S_ISREG(os.fstat(source).st_mode):
            raise OSError(f"{file} is no regular file any more")
        shutil.copyfileobj(reader, writer)


def _refusal(folder: Path, name: str, file: Path | None) -> str | None:
    """Why the file ``name`` is not copied; ``file``: what `find_file` found."""
    place = folder / name
    if not name.isprintable():
        return "a file whose name is no plain text"
    if file is None:
        kind = "" if not place.exists() or place.is_file() else _kind(place.stat().st_mode)
        return kind or ("a link that leads out of the folder" if place.exists() else "a link to nothing")
    facts = file.stat()
    # Of a file with a name elsewhere nobody can tell whose it is; those a model is made of are often stored once.
    if facts.st_nlink > 1 and not name.endswith((".json", ".model", ".jinja", "vocab.txt", "merges.txt")):
        return "a hard link, which has another name elsewhere"
    return (
        f"a file of {facts.st_size} bytes, too many for one beside weights" if facts.st_size > MAX_COMPANION else None
    )


def _places(folder: Path) -> list[Path]:
    """Where files of the (resolved) ``folder`` may lie: in it, or for a snapshot of the Hub cache among the blobs.

    ``CACHE/models--org--name/snapshots/COMMIT/file`` is a link into ``CACHE/models--org--name/blobs``, and with newer
    versions of huggingface_hub that is a link into ``CACHE/blobs``.
    """
    places = [folder]
    for parent in folder.parents:
        if parent.name == "snapshots" and parent.parent.name.startswith("models--"):
            places += [parent.parent / "blobs", parent.parents[1] / "blobs"]
    return places


def _kind(mode: int) -> str:
    if stat.S_ISDIR(mode):
        return "a folder"
    return "a pipe" if stat.S_ISFIFO(mode) else "a device or socket"
