"""A form made of a pydantic model: its fields, what was typed into them, and what is wrong, each error at its field.

What is typed stays text until it is checked, so that nothing is lost by a mistake. An empty field is one that is not
said: the default. Nested models are sections; what has no plain input (lists, mappings, unions) is written as YAML, on
one line where it is a number or a word.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin

import yaml
from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from kinship.errors import KinshipError
from kinship.safe_yaml import InvalidYaml, load_yaml

Texts = Mapping[str, str]
"""What was typed, by the dotted path of the field."""


@dataclass(frozen=True)
class Field:
    """One input. choices: of a select, beside the empty one. default: what an empty field means."""

    path: str
    label: str
    help: str
    kind: Literal["text", "number", "select", "line", "yaml"]
    choices: tuple[str, ...]
    default: str
    required: bool


@dataclass(frozen=True)
class Section:
    """The fields of one model; ``path`` is empty for the outermost."""

    path: str
    title: str
    help: str
    fields: tuple[Field, ...]


def sections_of(model: type[BaseModel], path: str = "", help: str = "") -> Iterator[Section]:
    """The sections of ``model``, itself first."""
    own, inner = [], []
    for name, info in model.model_fields.items():
        place = f"{path}.{name}" if path else name
        if isinstance(info.annotation, type) and issubclass(info.annotation, BaseModel):
            inner.append((info.annotation, place, info.description or ""))
        else:
            own.append(_field(place, name, info))
    yield Section(path, path.rpartition(".")[2].replace("_", " ") or "run", help, tuple(own))
    for nested, place, words in inner:
        yield from sections_of(nested, place, words)


def read(model: type[BaseModel], texts: Texts) -> tuple[dict[str, Any], dict[str, str]]:
    """Plain data of what was typed, and the errors of what is no YAML, by path."""
    content: dict[str, Any] = {}
    errors: dict[str, str] = {}
    for field in (field for section in sections_of(model) for field in section.fields):
        text = texts.get(field.path, "").strip()
        if not text:
            continue
        value: Any = text
        if field.kind != "text":
            try:
                value = load_yaml(text)
            except InvalidYaml as error:
                errors[field.path] = f"This is no YAML: {error}."
                continue
        *outer, last = field.path.split(".")
        place = content
        for part in outer:
            place = place.setdefault(part, {})
        place[last] = value
    return content, errors


def task_lines(evaluate: dict[str, Any]) -> None:
    """Make a list of tasks that were typed as plain lines."""
    if isinstance(evaluate.get("tasks"), str):
        evaluate["tasks"] = evaluate["tasks"].replace(",", " ").split()


def told(error: KinshipError) -> str:
    """What went wrong and what to do, as one text beside a form."""
    return f"{error.message} {error.hint or ''}".strip()


def errors_of(model: type[BaseModel], error: ValidationError) -> dict[str, str]:
    """What is wrong by the path of the field, else of the section, else at the empty path: the first of each."""
    paths = {field.path for section in sections_of(model) for field in section.fields}
    paths |= {section.path for section in sections_of(model)}
    found: dict[str, str] = {}
    for problem in error.errors(include_url=False):
        parts = [str(part) for part in problem["loc"]]
        ends = (".".join(parts[:end]) for end in range(len(parts), -1, -1))
        path = next(path for path in ends if path in paths)
        found.setdefault(path, _words(problem, parts[len(path.split(".")) if path else 0 :]))
    return found


def texts_of(model: type[BaseModel], content: BaseModel) -> dict[str, str]:
    """What would have to be typed to get ``content``; defaults are left empty."""
    found: dict[str, str] = {}
    for section in sections_of(model):
        for field in section.fields:
            place: Any = content
            *outer, last = field.path.split(".")
            for part in outer:
                place = getattr(place, part)
            info = type(place).model_fields[last]
            if getattr(place, last) != info.get_default(call_default_factory=True):
                value = content.model_dump(mode="json")
                for part in field.path.split("."):
                    value = value[part]
                found[field.path] = _typed(value, field.kind)
    return found


def _field(path: str, name: str, info: FieldInfo) -> Field:
    kind, choices = _kind(info.annotation)
    default = info.get_default(call_default_factory=True)
    shown = "" if default is PydanticUndefined or default in (None, "", [], {}, ()) else _typed(default, kind)
    return Field(path, name.replace("_", " "), info.description or "", kind, choices, shown, info.is_required())


def _kind(annotation: Any) -> tuple[Literal["text", "number", "select", "line", "yaml"], tuple[str, ...]]:
    members = get_args(annotation) if get_origin(annotation) in (Union, UnionType) else (annotation,)
    members = tuple(member for member in members if member is not NoneType)
    if len(members) == 1:
        (member,) = members
        if get_origin(member) is Literal:
            return "select", tuple(str(choice) for choice in get_args(member))
        if member is bool:
            return "select", ("true", "false")
        if member in (int, float):
            return "number", ()
        if member is str:
            return "text", ()
    plain = [member for member in members if get_origin(member) is Literal or member in (bool, int, float, str)]
    if len(plain) == len(members) or all(get_origin(member) is tuple for member in members):
        choices = [str(choice) for member in plain if get_origin(member) is Literal for choice in get_args(member)]
        return "line", tuple(choices)
    return "yaml", ()


def _typed(value: Any, kind: str) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, (str, int, float)):
        return str(value)
    if isinstance(value, tuple):
        value = list(value)
    flow = not (isinstance(value, dict) or (isinstance(value, list) and len(str(value)) > 60))
    return yaml.safe_dump(value, sort_keys=False, default_flow_style=flow, allow_unicode=True).strip()


def _words(problem: Any, within: list[str]) -> str:
    if problem["type"] == "missing":
        return f"{'.'.join(within)} is needed." if within else "This is needed."
    words = str(problem.get("ctx", {}).get("error", problem["msg"])).replace("Input should be", "Expected")
    place = f"{'.'.join(within)}: " if within else ""
    said = place + words[:1].upper() * (not place) + words[(not place) :]
    return said if said.endswith((".", "?")) else f"{said}."
