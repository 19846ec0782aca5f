"""YAML as plain data: whatever a file says, reading it is quick, small, and runs nothing.

What a plain word means is said here, since YAML's versions differ: ``null`` or ``~``, ``true`` and ``false``, decimal
numbers. ``no``, ``on``, ``010``, ``1:30``, ``1_000`` and ``2024-01-01`` are texts. Whatever PyYAML writes is read back
as it was.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import yaml

MAX_CHARACTERS = 4 << 20
MAX_VALUES = 200_000
MAX_DEPTH = 100

_TAG = "tag:yaml.org,2002:"
_WORDS = {"": None, "~": None} | {
    word: value
    for name, value in (("null", None), ("true", True), ("false", False))
    for word in (name, name.capitalize(), name.upper())
}
_INTEGER = re.compile(r"[-+]?(0|[1-9][0-9]*)")
_FLOAT = re.compile(r"[-+]?([0-9]+\.[0-9]*|\.[0-9]+)([eE][-+][0-9]+)?")
_SPECIAL = re.compile(r"([-+]?)\.(inf|Inf|INF)|\.(nan|NaN|NAN)")
_TYPES = {"str": str, "int": int, "float": float, "bool": bool, "null": type(None)}

Tags = Mapping[str, Callable[[str], Any]]


class InvalidYaml(ValueError):
    """What is wrong with a text, and where in it."""


def load_yaml(text: str, tags: Tags | None = None) -> Any:
    """The one document in ``text``, None where it is empty; raises as `load_yaml_documents`, and for several."""
    documents = load_yaml_documents(text, tags)
    if len(documents) > 1:
        raise InvalidYaml(f"it has {len(documents)} documents; one was expected")
    return documents[0] if documents else None


def load_yaml_documents(text: str, tags: Tags | None = None) -> list[Any]:
    """All documents in ``text``; ``tags``: what to make of scalars with a tag of one's own.

    Aliases and merge keys count as often as they are used, against `MAX_VALUES`. Cost: 2 s and 50 MB at most.
    Raises `InvalidYaml` for a text that is too large, nests deeper than `MAX_DEPTH`, gives a key twice, or has a value
    that is no plain data.

    >>> load_yaml_documents("{license: no, released: 2024-01-01, mode: 010, weight: 0.5}")
    [{'license': 'no', 'released': '2024-01-01', 'mode': '010', 'weight': 0.5}]
    """
    if len(text) > MAX_CHARACTERS:
        raise InvalidYaml(f"it has {len(text)} characters; at most {MAX_CHARACTERS} are read")
    loader = yaml.CSafeLoader if yaml.__with_libyaml__ else yaml.SafeLoader
    try:
        return _Reader(yaml.parse(text, Loader=loader), tags or {}).documents()
    except yaml.MarkedYAMLError as error:
        raise _at(error.problem_mark or error.context_mark, str(error.problem or error.context)) from None
    except (yaml.YAMLError, UnicodeError) as error:
        raise InvalidYaml(f"it is no text of YAML ({str(error).splitlines()[0]})") from None


class _Reader:
    """Values from the events of a parser, which itself neither recurses nor expands anything."""

    def __init__(self, events: Iterator[Any], tags: Tags) -> None:
        self._events = events
        self._tags = tags
        self._anchors: dict[str, tuple[Any, int]] = {}  # with the number of values in it
        self._count = 0

    def documents(self) -> list[Any]:
        found = []
        for event in self._events:
            if isinstance(event, yaml.DocumentStartEvent):
                self._anchors.clear()
                found.append(self._value(next(self._events), 0))
        return found

    def _value(self, event: Any, depth: int) -> Any:
        if depth > MAX_DEPTH:
            raise _at(event.start_mark, f"lists and mappings nest deeper than {MAX_DEPTH}")
        if isinstance(event, yaml.AliasEvent):
            if event.anchor not in self._anchors:
                raise _at(event.start_mark, f"*{event.anchor} refers to nothing before it, or to what it is in")
            value, size = self._anchors[event.anchor]
            self._spend(size, event)
            return value
        before = self._count
        self._spend(1, event)
        if isinstance(event, yaml.ScalarEvent):
            value = self._scalar(event)
        elif isinstance(event, yaml.SequenceStartEvent):
            self._require_plain(event, "seq")
            value = [self._value(item, depth + 1) for item in self._until(yaml.SequenceEndEvent)]
        else:
            self._require_plain(event, "map")
            value = self._mapping(depth + 1)
        if event.anchor is not None:
            self._anchors[event.anchor] = value, self._count - before
        return value

    def _mapping(self, depth: int) -> dict[Any, Any]:
        own: dict[Any, Any] = {}
        merged: dict[Any, Any] = {}
        seen = set()
        for event in self._until(yaml.MappingEndEvent):
            merges = isinstance(event, yaml.ScalarEvent) and event.value == "<<" and event.implicit[0]
            key = self._value(event, depth)
            if isinstance(key, dict | list):
                raise _at(event.start_mark, "a key is a list or a mapping; text was expected")
            if (type(key), key) in seen:
                raise _at(event.start_mark, f"{key!r} is given twice")
            seen.add((type(key), key))
            value = self._value(next(self._events), depth)
            if not merges:
                own[key] = value
                continue
            parts = value if isinstance(value, list) else [value]
            if not all(isinstance(part, dict) for part in parts):
                raise _at(event.start_mark, "'<<' merges what is no mapping")
            for part in reversed(parts):
                merged |= part
        return merged | own

    def _until(self, end: type) -> Iterator[Any]:
        for event in self._events:
            if isinstance(event, end):
                return
            yield event

    def _scalar(self, event: Any) -> Any:
        text, tag = event.value, event.tag
        if tag in self._tags:
            return self._tags[tag](text)
        if tag is None or tag == "!":
            return _meaning(text, event) if event.implicit[0] and tag is None else text
        kind = tag.removeprefix(_TAG)
        if kind == "str":
            return text
        self._require_plain(event, *_TYPES)
        found = _meaning(text, event)
        if kind == "float" and type(found) is int:
            found = float(found)
        if type(found) is not _TYPES[kind]:
            raise _at(event.start_mark, f"{text!r} is no {kind}, as its tag says")
        return found

    def _require_plain(self, event: Any, *kinds: str) -> None:
        if event.tag not in (None, "!", *(_TAG + kind for kind in kinds)):
            raise _at(event.start_mark, f"the tag {event.tag!r} is not known here; plain data was expected")

    def _spend(self, values: int, event: Any) -> None:
        self._count += values
        if self._count > MAX_VALUES:
            raise _at(event.start_mark, f"with its aliases written out it has more than {MAX_VALUES} values")


def _meaning(text: str, event: Any) -> Any:
    """What a word without quotes stands for."""
    if text in _WORDS:
        return _WORDS[text]
    try:
        if _INTEGER.fullmatch(text):
            return int(text)
        if _FLOAT.fullmatch(text):
            return float(text)
    except ValueError:  # Python reads no integer of more than some thousand digits
        raise _at(event.start_mark, f"a number of {len(text)} digits is too long") from None
    special = _SPECIAL.fullmatch(text)
    if special:
        return float(f"{special[1]}inf" if special[2] else "nan")
    return text


def _at(mark: Any, problem: str) -> InvalidYaml:
    place = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
    return InvalidYaml(place + problem)
