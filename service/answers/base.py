"""What every answer is: a typed, frozen object that knows its schema, and is the same as JSON wherever it is shown.

A field whose default is None may be absent: what is not said is not printed (``exclude_unset``; for FastAPI that is
``response_model_exclude_unset``). The texts below fields are their help, in JSON Schema too. No number is NaN.
"""

from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from kinship.outside import json_text


class Part(BaseModel):
    """A piece of an answer."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, allow_inf_nan=False, use_attribute_docstrings=True, populate_by_name=True
    )

    def content(self) -> dict[str, Any]:
        """Plain data, in the order of the fields: what JSON shows."""
        return self.model_dump(by_alias=True, exclude_unset=True)


class Answer(Part):
    """What a command, a route or a page shows. A subclass gives ``schema_`` its one value by `named`."""

    schema_: str = Field(alias="schema")

    def model_post_init(self, _: Any) -> None:
        """The schema is always said."""
        self.model_fields_set.add("schema_")

    def to_json(self, *, indent: int | None = 2) -> str:
        """The text that ``--json`` prints, without the end of the line."""
        return json_text(self.content(), indent=indent)


def named(schema: str) -> Any:
    """The field that names an answer's schema and its version, as in ``kinship.matrix/1``."""
    return Field(default=schema, alias="schema", description="Name and version of this object.")
