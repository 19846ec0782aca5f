"""Which tasks there are to score on, by name: those of lm-eval, and those of a folder."""

import re
from functools import cache
from importlib.util import find_spec
from pathlib import Path

_NAME = re.compile(r"^(?:task|group)\s*:\s*[\"']?([\w.:/-]+)", re.MULTILINE)


def search(words: str, own: Path | None = None, most: int = 40) -> list[str]:
    """Names that have every one of ``words``, those of the folder ``own`` first, then the shortest.

    Cost: the first time, a second or two: the heads of lm-eval's YAML files are read.
    """
    wanted = words.lower().split()
    known = [*(_names(own) if own else ()), *_names_of_lm_eval()]
    fit = [name for name in dict.fromkeys(known) if all(word in name.lower() for word in wanted)]
    mine = set(_names(own)) if own else set()
    return sorted(fit, key=lambda name: (name not in mine, name.lower() != words.lower(), len(name), name))[:most]


@cache
def _names_of_lm_eval() -> tuple[str, ...]:
    found = find_spec("lm_eval")
    places = found.submodule_search_locations if found else None
    return _names(Path(places[0]) / "tasks") if places else ()


def _names(folder: Path) -> tuple[str, ...]:
    """Of the YAML files below ``folder``; a task's name stands at the beginning of a line."""
    names: dict[str, None] = {}
    for file in sorted(folder.rglob("*.y*ml")):
        with open(file, encoding="utf-8", errors="replace") as lines:
            names |= dict.fromkeys(_NAME.findall(lines.read(4096)))
    return tuple(names)
