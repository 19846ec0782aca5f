"""What a recipe says of the tokenizer of the result, in mergekit's words."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import Discriminator, Field, Tag, model_validator

from kinship.validation import Strict


class Row(Strict):
    """An embedding to take for a token."""

    kind: Literal["zero", "model_token"] = Field(description="zeros, or the row of some token of some model")
    model: str | None = Field(None, description="model_token: one of the models")
    token: str | None = Field(None, description="model_token: which of its tokens")
    token_id: int | None = Field(None, ge=0, description="model_token: or which of its rows")

    @model_validator(mode="after")
    def _check(self) -> Self:
        named = (self.token is not None) + (self.token_id is not None)
        if self.kind == "zero" and (self.model is not None or named):
            raise ValueError("kind zero takes neither model nor token")
        if self.kind == "model_token" and (self.model is None or named != 1):
            raise ValueError("kind model_token needs a model and one of token and token_id")
        return self


def _kind_of_source(value: Any) -> str:
    return "[row]" if isinstance(value, Mapping | Row) else "str"


# The tags are not shown in errors, see kinship.validation.
Source = Annotated[Annotated[str, Tag("str")] | Annotated[Row, Tag("[row]")], Discriminator(_kind_of_source)]


class TokenSettings(Strict):
    """Where one token's embedding comes from."""

    source: Source | None = Field(None, description="one of the models, or a row; default: as other tokens")
    force: bool = Field(False, description="also for the models that have the token")


class TokenizerSettings(Strict):
    """mergekit's long form of tokenizer_source."""

    source: str = Field("union", description="base, union, or one of the models")
    pad_to_multiple_of: int | None = Field(
        None, ge=1, le=1 << 20, description="rows of the embeddings are a multiple of this"
    )
    tokens: dict[str, TokenSettings] = Field(default_factory=dict, description="embeddings of single tokens")
