"""Checked schemas: one strict base class, and errors that name the nearest right key."""

import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from re import findall
from types import NoneType
from typing import Any, TypeVar, get_args

from pydantic import BaseModel, ConfigDict, ValidationError, ValidationInfo, field_validator

from kinship.errors import InvalidConfig, ReferenceNotFound
from kinship.errors import nearest as nearest
from kinship.safe_yaml import load_yaml_documents

Schema = TypeVar("Schema", bound=BaseModel)


class Strict(BaseModel):
    """A schema that is frozen and refuses unknown keys; whoever makes one directly is told by an `InvalidConfig`."""

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True, allow_inf_nan=False)

    def __init__(self, /, **data: Any) -> None:
        try:
            super().__init__(**data)
        except ValidationError as error:
            raise invalid(error, type(self).__name__, type(self)) from None

    # Nothing that validation itself has to call, which would lose the place of an error in what is around it.
    __init__.__pydantic_base_init__ = True  # type: ignore[attr-defined]

    @field_validator("*", mode="before")
    @classmethod
    def _no_truth_for_a_number(cls, value: object, info: ValidationInfo) -> object:
        """YAML's ``yes`` is true, which pydantic would take for 1."""
        if isinstance(value, bool) and _is_number(cls.model_fields[str(info.field_name)].annotation):
            raise ValueError("expected a number")
        return value


def read_yaml(path: str | Path, kind: str) -> object:
    """The plain data in a YAML file, a ``kind`` of file to the user; raises `ReferenceNotFound` or `InvalidConfig`."""
    documents = read_yaml_documents(path, kind)
    if len(documents) > 1:
        raise InvalidConfig(f"{path} holds {len(documents)} YAML documents; one was expected.", hint="Remove the ---.")
    return documents[0]


def read_yaml_documents(path: str | Path, kind: str) -> list[Any]:
    """The plain data of every document in a YAML file, at least one; raises as `read_yaml`."""
    path = Path(path)
    if not path.is_file():
        raise ReferenceNotFound(f"There is no {kind} at {path}.", hint="Give the path of a YAML file.")
    try:
        return load_yaml_documents(path.read_text(encoding="utf-8")) or [None]
    except ValueError as error:
        raise InvalidConfig(f"{path} is not valid YAML: {error}.", hint="Correct it there, and try again.") from None
    except OSError as error:
        raise InvalidConfig(f"{path} cannot be read: {error.strerror}.", hint="Check who may read it.") from None


def require_numbers(content: object, source: str) -> None:
    """Raise `InvalidConfig` for a number in plain data that is not finite, or an integer of more than 63 bits.

    >>> require_numbers({"stop": {"hours": float("inf")}}, "run.yml")
    Traceback (most recent call last):
    kinship.errors.InvalidConfig: run.yml: 'stop.hours' is inf: expected a finite number.
    """
    seen, left = set(), [("", content)]
    while left:
        place, value = left.pop()
        if isinstance(value, Mapping | list | tuple):
            if id(value) not in seen:  # YAML can refer to what it is in
                seen.add(id(value))
                inner = value.items() if isinstance(value, Mapping) else enumerate(value)
                left += [(f"{place}.{key}" if place else str(key), part) for key, part in inner]
        elif isinstance(value, float) and not math.isfinite(value):
            raise InvalidConfig(f"{source}: {place!r} is {value}: expected a finite number.", hint="Leave it out?")
        elif isinstance(value, int) and value.bit_length() > 63:
            size = f"an integer of {value.bit_length():,} bits"
            raise InvalidConfig(f"{source}: {place!r} is {size}: expected at most 63.", hint="Give a smaller one.")


def checked(schema: type[Schema], content: object, source: str) -> Schema:
    """Plain data from ``source`` as ``schema`` has it; raises `InvalidConfig` naming the nearest right key."""
    require_numbers(content, source)
    try:
        return schema.model_validate(content)
    except ValidationError as error:
        raise invalid(error, source, schema) from None


def invalid(error: ValidationError, source: str, schema: type[BaseModel]) -> InvalidConfig:
    """The first problem of a pydantic ``error`` in words, with its place in ``source`` and what to do."""
    # A misspelt key is often a missing one too; the misspelling is what the user can mend.
    problems = error.errors(include_url=False)
    first, *others = sorted(problems, key=lambda problem: problem["type"] != "extra_forbidden")
    if any(map(_is_union_tag, first["loc"])) and first["type"] != "extra_forbidden":
        first, *others = _deepest(first, others)
    *path, key = first["loc"] or ("?",)
    place = ".".join(map(str, _plain(first["loc"]))) or "the top"
    if first["type"] == "extra_forbidden":
        known = [field.alias or name for name, field in _schema_at(schema, path).model_fields.items()]
        return InvalidConfig(f"{source} has the unknown key {place!r}.", hint=nearest(str(key), known))
    if first["type"] == "missing":
        return InvalidConfig(f"{source} lacks the key {place!r}.", hint=f"Add {key}: to it.")
    tried = others if any(map(_is_union_tag, first["loc"])) else []
    return _refused(first, source, place if first["loc"] else "", tried)


def _deepest(first: Any, others: list[Any]) -> list[Any]:
    """Of what every member of a union says of one value, that which goes furthest into it: it was meant."""
    place = _plain(first["loc"])
    rivals = [first, *(other for other in others if _plain(other["loc"])[: len(place)] == place)]
    furthest = max(len(_plain(rival["loc"])) for rival in rivals)
    deepest = [rival for rival in rivals if len(_plain(rival["loc"])) == furthest]
    return [rival for rival in deepest if _plain(rival["loc"]) == _plain(deepest[0]["loc"])]


def _refused(problem: Any, source: str, place: str, others: Sequence[Any] = ()) -> InvalidConfig:
    """What is wrong with the value at ``place``, the top where that is empty; ``others`` would also have done."""
    found, context = problem["input"], problem.get("ctx", {})
    if problem["type"] in {"model_type", "model_attributes_type", "dict_type"}:
        where = f"{source}: {place!r}" if place else source
        given = "nothing" if found is None else f"{found!r}"
        return InvalidConfig(f"{where} holds {given}; expected a mapping.", hint="Write `key: value`, one a line.")
    words, hint = str(context.get("error", problem["msg"])).replace("Input should be", "expected"), ""
    if problem["type"] == "literal_error" and isinstance(found, str):
        hint = nearest(found, findall(r"'([^']*)'", context["expected"]))
    if problem["type"] == "list_type":
        hint = f"Write it as a list: [{found if isinstance(found, str) else 'one, another'}]."
    if problem["type"] == "too_short":
        words = f"expected at least {context['min_length']}, found {context['actual_length']}"
    if others:
        wanted = [f"{part['msg']}".removeprefix("Input should be ").split(", ")[0] for part in (problem, *others)]
        wanted = [text.replace("List should have", "a list of").split(" or instance of ")[0] for text in wanted]
        words = "expected " + " or ".join(dict.fromkeys(text.split(" after validation")[0] for text in wanted))
    words += "" if words.endswith((".", "?")) else "."
    return InvalidConfig(f"{source}: {place!r} is {found!r}: {words}" if place else f"{source}: {words}", hint=hint)


def _is_number(annotation: Any) -> bool:
    """Whether a field takes a number and no truth value."""
    kinds = {annotation, *get_args(annotation)}
    return bool(kinds & {int, float}) and bool not in kinds


def _plain(location: Iterable[int | str]) -> list[int | str]:
    """A location without the union members tried on the way."""
    return [part for part in location if not _is_union_tag(part)]


def _is_union_tag(part: int | str) -> bool:
    """Pydantic puts the tried member of a union into the location, as 'float' or 'list[...]'."""
    return isinstance(part, str) and (part in {"bool", "float", "int", "str"} or "[" in part)


def _schema_at(schema: type[BaseModel], path: list[Any]) -> type[BaseModel]:
    for part in path:
        if isinstance(part, str) and part in schema.model_fields:
            schema = _nested(schema.model_fields[part].annotation) or schema
    return schema


def _nested(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    inner = (_nested(part) for part in get_args(annotation) if part is not NoneType)
    return next((schema for schema in inner if schema is not None), None)
