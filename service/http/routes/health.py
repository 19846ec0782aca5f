"""Is the server there?"""

from fastapi import APIRouter

from service.answers.served import Health
from service.http.backend import Asked

router = APIRouter(tags=["health"])


@router.get("/health", response_model=Health, response_model_exclude_unset=True)
def health(backend: Asked) -> Health:
    """That the server works, over which folder."""
    return backend.health()
