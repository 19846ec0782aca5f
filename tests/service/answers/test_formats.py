"""docs/formats.md is about every answer: its schema, and each of its fields."""

import re
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules
from typing import Any, get_args

import pytest
from pydantic import BaseModel

import service.answers
from service.answers.base import Answer, Part

DOCUMENT = Path(__file__).parents[3] / "docs/formats.md"
# What an event is made of stands in one table, and what an export has in another section.
ELSEWHERE = {"kinship.run-full/5": "kinship.run/5", "kinship.event/2": "kinship.run/5"}


def answers(of: type[Answer] = Answer) -> Iterator[type[Answer]]:
    for module in iter_modules(service.answers.__path__):
        import_module(f"service.answers.{module.name}")
    for each in of.__subclasses__():
        if not each.__name__.startswith("_"):
            yield each
        yield from answers(each)


def schema(answer: type[Answer]) -> str:
    return str(answer.model_fields["schema_"].default)


def parts(annotation: Any) -> Iterator[type[BaseModel]]:
    """The models that a type mentions, and those that they mention."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
        for field in annotation.model_fields.values():
            yield from parts(field.annotation)
    for argument in get_args(annotation):
        yield from parts(argument)


def sections() -> dict[str, str]:
    """The text below the headings that name each schema."""
    found: dict[str, str] = {}
    for section in DOCUMENT.read_text().split("\n## ")[1:]:
        for name in re.findall(r"kinship\.[\w-]+/\d+", section.splitlines()[0]):
            found[name] = section
    return found


ANSWERS = sorted(set(answers()), key=lambda answer: answer.__name__)


@pytest.mark.parametrize("answer", ANSWERS, ids=lambda answer: answer.__name__)
def test_every_field_is_documented(answer: type[Answer]) -> None:
    told = sections()
    assert schema(answer) in told, f"docs/formats.md has no section of {schema(answer)}"
    text = told[schema(answer)] + told.get(ELSEWHERE.get(schema(answer), ""), "")
    known = set(re.findall(r"\w+", " ".join(re.findall(r"`[^`]*`", text))))
    for part in parts(answer):
        if part is not answer and issubclass(part, Answer):
            continue  # an answer of its own, as an error is
        missing = part.model_fields.keys() - {"schema_"} - known
        shared = {field for other in ANSWERS if part in set(parts(other)) for field in _words(told, schema(other))}
        assert not missing - shared, f"{part.__name__}: {sorted(missing - shared)} are not in the section"
        for name, field in part.model_fields.items():
            assert field.description or name == "event", f"{part.__name__}.{name} has no help"


def _words(told: dict[str, str], name: str) -> set[str]:
    return set(re.findall(r"\w+", " ".join(re.findall(r"`[^`]*`", told.get(name, "")))))


def test_every_schema_of_an_answer_is_one_class() -> None:
    names = [schema(answer) for answer in ANSWERS if schema(answer) != "kinship.event/2"]
    assert len(set(names)) == len(names)
    documented = set(sections()) - {"kinship.lineage/2", "kinship.ledger/1"}  # files, not answers
    assert documented == {schema(answer) for answer in ANSWERS}


def test_answers_are_public_by_name() -> None:
    for answer in ANSWERS:
        assert getattr(service.answers, answer.__name__) is answer
    assert {answer.__name__ for answer in ANSWERS} <= set(service.answers.__all__)
    assert all(callable(getattr(service.answers, name)) for name in service.answers.__all__)
    with pytest.raises(AttributeError, match="nothing"):
        service.answers.nothing  # noqa: B018


@pytest.mark.parametrize("part", [Part, *ANSWERS], ids=lambda part: part.__name__)
def test_answers_refuse_what_they_do_not_know(part: type[Part]) -> None:
    with pytest.raises(ValueError, match="Extra inputs are not permitted"):
        part.model_validate({"unheard": 1})
