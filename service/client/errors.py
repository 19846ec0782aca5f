"""What a client raises."""

from kinship.errors import KinshipError


class ServiceError(KinshipError):
    """What the server refuses or cannot do: its code, message and hint, and the HTTP ``status``."""

    code = "service_error"

    def __init__(self, status: int, message: str, *, hint: str = "", told: str = "") -> None:
        super().__init__(message, hint=hint)
        self.status = status
        self.told = told
        """The code that the server gave."""


class NoService(ServiceError):
    """Nobody answers at the address, or what answers is no service; it may be one later."""

    def __init__(self, address: object, error: Exception) -> None:
        said = next(iter(str(error).splitlines()), "") or type(error).__name__
        hint = "Is that the address of a kinship service of this version, and does it run?"
        super().__init__(0, f"No service answers at {address}: {said}.", hint=hint)
