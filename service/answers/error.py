"""An error, as every command and route tells it."""

from typing import Literal, Self

from kinship.errors import KinshipError
from service.answers.base import Answer, named


class Error(Answer):
    """Input that cannot be used; a command then ends with exit code 1."""

    schema_: Literal["kinship.error/1"] = named("kinship.error/1")
    code: str
    """Stable: one of the codes in docs/formats.md."""
    message: str
    """The item, what was expected and what was found."""
    hint: str
    """What to do next."""

    @classmethod
    def of(cls, error: KinshipError) -> Self:
        """The answer that tells of ``error``."""
        return cls(code=error.code, message=error.message, hint=error.hint)
