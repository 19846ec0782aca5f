"""The Python that tasks and functions of one's own are made of: their files, what these import, files that they name.

Installed packages are not followed: they have versions.
"""

import ast
import hashlib
import site
import sys
import sysconfig
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from importlib.machinery import SourceFileLoader
from pathlib import Path
from typing import Any
from unittest.mock import patch

_OURS = {"kinship", "merging", "evaluators", "search", "service"}
_LONGEST_NAME = 255


def code_digests(files: Iterable[Path], folders: Sequence[Path] = ()) -> dict[str, list[str]]:
    """Digests of ``files``, of the local modules that they import, directly or not, and of the files that they name.

    By the names that they are known by, wherever they lie. Modules are looked for beside who imports them, in
    ``folders`` and on the path of this process, and each that is found counts, so that none is missed. Imports within
    functions count, and ``import_module("name")``; names that are put together when the program runs are not seen.
    Files count that a text in the program names whole, from its own folder or one of ``folders``.
    """
    found: dict[str, set[str]] = {}
    todo = [(file.name, file) for file in files]
    seen: set[Path] = set()
    while todo:
        name, file = todo.pop()
        content = file.read_bytes()
        found.setdefault(name, set()).add(hashlib.sha256(content).hexdigest())
        if file.suffix == ".py" and file.resolve() not in seen:
            seen.add(file.resolve())
            todo += _mentioned(file, content, folders)
    return {name: sorted(digests) for name, digests in sorted(found.items())}


@contextmanager
def from_source() -> Iterator[None]:
    """Within, local modules are compiled from their sources: what is kept compiled goes by their sizes and dates."""
    stats = SourceFileLoader.path_stats

    def path_stats(self: SourceFileLoader, path: str) -> Any:
        if not _installed(Path(path)):
            raise OSError("compiled anew")  # to which importlib answers by neither reading nor writing what it keeps
        return stats(self, path)

    with patch.object(SourceFileLoader, "path_stats", path_stats):
        yield


def _mentioned(file: Path, content: bytes, folders: Sequence[Path]) -> Iterator[tuple[str, Path]]:
    """(name, file) of everything local that the module ``file`` imports or names."""
    try:
        tree = ast.parse(content)
    except (SyntaxError, ValueError):
        return
    home, package = _home(file)
    places = [file.parent, home, *folders, *_local_path()]
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield from _named(node.value, [file.parent, *folders])
        for level, name in _imports(node):
            if level:
                yield from _modules(name, [file.parents[min(level, len(file.parents)) - 1]])
            elif name.partition(".")[0] == package or not _installed(file):
                yield from _modules(name, places)


def _imports(node: ast.AST) -> Iterator[tuple[int, str]]:
    """(level, dotted name) of what a node may import."""
    match node:
        case ast.Import(names):
            yield from ((0, name.name) for name in names)
        case ast.ImportFrom(module, names, level):
            yield from ((level or 0, ".".join(filter(None, (module, name.name)))) for name in names)
        case ast.Call(
            func=ast.Name(id="import_module" | "__import__") | ast.Attribute(attr="import_module"),
            args=[ast.Constant(value=str(name)), *_],
        ):
            yield len(name) - len(name.lstrip(".")), name.lstrip(".")


def _modules(name: str, places: Sequence[Path]) -> Iterator[tuple[str, Path]]:
    """The files of the module ``name`` and of the packages that it is in; what is no module may be an attribute."""
    parts = name.split(".")
    if parts[0] in _OURS:
        return
    for place in dict.fromkeys(places):
        for count in range(1, len(parts) + 1):
            stem = place.joinpath(*parts[:count])
            for file in (stem.with_name(f"{stem.name}.py"), stem / "__init__.py"):
                if file.is_file() and (not _installed(file) or _installed(place)):
                    yield ".".join(parts[:count]), file


def _named(text: str, places: Sequence[Path]) -> Iterator[tuple[str, Path]]:
    name = text.lstrip("/")
    if not name or len(name) > _LONGEST_NAME or "\n" in name or "\0" in name:
        return
    for place in places:
        try:
            if (place / name).is_file():
                yield name, place / name
        except OSError:  # no name that a file could have
            return


def _home(file: Path) -> tuple[Path, str]:
    """The folder that the outermost package of ``file`` is in, and that package's name; empty outside packages."""
    folder, package = file.parent, ""
    while (folder / "__init__.py").is_file() and folder != folder.parent:
        folder, package = folder.parent, folder.name
    return folder, "" if package == "lm_eval" else package  # its version says it all


def _local_path() -> list[Path]:
    places = [Path(entry or ".") for entry in sys.path]
    return [place for place in places if place.is_dir() and not _installed(place)]


def _installed(file: Path) -> bool:
    return any(file.absolute().is_relative_to(place) for place in _installations())


@cache
def _installations() -> tuple[Path, ...]:
    """Where the standard library and packages are installed."""
    named = [sysconfig.get_paths()[name] for name in ("stdlib", "platstdlib", "purelib", "platlib")]
    return tuple({Path(place) for place in (*named, *site.getsitepackages(), site.getusersitepackages())})
