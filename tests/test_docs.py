"""Docs and program cannot drift apart."""

import re
from collections.abc import Iterator
from pathlib import Path

from pydantic import BaseModel
from pydantic_core import PydanticUndefined

from kinship.errors import KinshipError
from search.config import RunConfig

ROOT = Path(__file__).parents[1]


def run_file_rows(schema: type[BaseModel], prefix: str = "") -> Iterator[str]:
    """A table row for every key of the run file, in the order of the schema."""
    for name, field in schema.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from run_file_rows(field.annotation, f"{prefix}{name}.")
            continue
        default = "required" if field.default is PydanticUndefined and field.default_factory is None else field.default
        shown = {None: "", PydanticUndefined: ""}.get(default, default) if not isinstance(default, dict) else ""
        yield f"| `{prefix}{name}` | {shown} | {field.description} |"


def test_every_key_of_the_run_file_is_documented_as_it_is() -> None:
    text = (ROOT / "docs/formats.md").read_text()
    for row in run_file_rows(RunConfig):
        assert row in text, f"docs/formats.md lacks this row:\n{row}"


def test_every_error_code_is_documented() -> None:
    text = (ROOT / "docs/formats.md").read_text()
    kinds = KinshipError.__subclasses__()
    assert kinds
    for kind in kinds:
        assert f"`{kind.code}`" in text


def test_every_schema_the_program_prints_is_documented() -> None:
    text = (ROOT / "docs/formats.md").read_text()
    for file in ROOT.glob("[kmes]*/**/*.py"):
        for schema in re.findall(r'"(kinship\.[a-z-]+/\d+)"', file.read_text()):
            assert f"`{schema}`" in text, f"{schema}, printed by {file}"


def test_every_command_is_in_the_readme() -> None:
    from service.cli import app

    text = (ROOT / "README.md").read_text()
    for command in app.registered_commands:
        name = command.name or command.callback.__name__.replace("_", "-")  # type: ignore[union-attr]
        assert f"kinship {name}" in text


def test_the_example_run_files_are_valid() -> None:
    from search.config import load_config

    assert load_config(ROOT / "examples/run.yml").merge.method == "slerp"
    assert load_config(ROOT / "examples/gpu.yml").race.enabled
    assert load_config(ROOT / "examples/cluster.yml").workers.kind == "ray"
