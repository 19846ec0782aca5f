"""What a recipe says of the heads that are to be kept beside its merge."""

from pydantic import Field

from kinship.validation import Strict


class SurgerySettings(Strict):
    """How the heads of Representation Surgery are fitted, one for each model merged, on its documents."""

    rank: int = Field(16, ge=0, description="of a head; 0 changes nothing")
    steps: int = Field(500, ge=0, description="steps of Adam")
    rate: float = Field(0.001, gt=0, description="learning rate")
