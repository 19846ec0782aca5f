"""How models are opened and compared: the one object that commands, answers and Python hand on."""

from typing import Literal, Self

from pydantic import Field, ModelWrapValidatorHandler, ValidationError, model_validator

from kinship.measures.alignment import Selection
from kinship.validation import Strict, invalid


class ComparisonOptions(Strict):
    """How to compare models; the defaults suit most. Raises `InvalidConfig` for what cannot be."""

    vocab: Literal["same", "shared"] = Field(
        "same",
        description="shared: embeddings and heads are compared by the tokens that all tokenizers have, else left out "
        "where their rows differ in number",
    )
    allow_pickle: bool = Field(False, description="read local .bin, .pt and .pth files too, without running their code")
    include: str | None = Field(None, description="only tensors whose name matches this regular expression")
    exclude: str | None = Field(None, description="no tensors whose name matches this regular expression")
    device: Literal["auto", "cpu", "cuda"] = Field("cpu", description="what computes the products; cuda is untested")
    rank: int = Field(16, ge=1, description="singular directions of each matrix, for the metric subspace")

    @property
    def selection(self) -> Selection:
        """Which tensors are wanted."""
        return Selection(self.include, self.exclude)

    @model_validator(mode="wrap")
    @classmethod
    def _in_words(cls, values: object, check: ModelWrapValidatorHandler[Self]) -> Self:
        try:
            options = check(values)
        except ValidationError as error:
            raise invalid(error, "How to compare", cls) from None
        _ = options.selection  # raises for what is no regular expression
        return options


DEFAULTS = ComparisonOptions()
