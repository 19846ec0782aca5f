"""What a recipe says of alignment: whose order of units the models get before they are merged."""

from typing import Annotated, Any

from pydantic import BeforeValidator, Field

from kinship.validation import Strict


class AlignSettings(Strict):
    """Models are permuted, which changes nothing that they compute, to be most like one of them."""

    to: str = Field(description="the model that the others are aligned to")
    residual: bool = Field(True, description="permute the channels that all layers share, embeddings among them, too")


def _as_settings(value: Any) -> Any:
    """The model alone stands for the settings."""
    return {"to": value} if isinstance(value, str) else value


Align = Annotated[AlignSettings, BeforeValidator(_as_settings)]
