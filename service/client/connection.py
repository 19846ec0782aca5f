"""A connection to a service: requests, answers read and checked, refusals as errors."""

import re
import time
import uuid
from typing import Any, Self, TypeVar
from urllib.parse import quote

import httpx
from pydantic import ValidationError

from kinship.errors import InvalidConfig
from service.answers.base import Answer
from service.client.errors import NoService, ServiceError

API = "/api/v1"
SECONDS = 0.5  # between two looks at a job, or two attempts to come back

Found = TypeVar("Found", bound=Answer)


class Connection:
    """What both clients are made of. Use as a context manager, or `close` it.

    ``address`` is that which `kinship serve` prints; anything else raises `InvalidConfig`.
    """

    def __init__(
        self,
        address: str,
        token: str | None = None,
        *,
        timeout: float = 30.0,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        if not re.match(r"https?://[^/\s]", address):
            raise InvalidConfig(f"{address!r} is no address of a service.", hint="Write http://HOST:PORT.")
        if token is not None and not re.fullmatch(r"[!-~]+", token):
            raise InvalidConfig("The token is no plain characters, so that no server has it.", hint="Look at it again.")
        try:
            self._http = httpx.Client(base_url=address, transport=transport, **self.arguments(token, timeout))
        except httpx.InvalidURL as error:
            raise InvalidConfig(f"{address!r} is no address: {error}.", hint="Write http://HOST:PORT.") from None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close every connection."""
        self._http.close()

    def get(self, kind: type[Found], *path: object, **query: Any) -> Found:
        """Any answer by its path: ``get(Health, "health")``."""
        return self.read(self._ask("GET", self.path(*path), params=_given(**query)), kind)

    def _ask(self, method: str, path: str, **options: Any) -> httpx.Response:
        try:
            return self._http.request(method, path, **options)
        except httpx.RequestError as error:
            raise NoService(self._http.base_url, error) from error

    def post(self, kind: type[Found], *path: object, body: object = None) -> Found:
        """Ask for something to be done, once, though the connection may fail on the way."""
        headers = {"Idempotency-Key": uuid.uuid4().hex}
        for attempt in (1, 2, 3):
            try:
                return self.read(self._ask("POST", self.path(*path), json=body, headers=headers), kind)
            except NoService:
                if attempt == 3:
                    raise
                time.sleep(SECONDS)
        raise AssertionError

    @staticmethod
    def path(*parts: object) -> str:
        """A path below the API; what is in a part stays in it."""
        return API + "".join(f"/{quote(str(part), safe='')}" for part in parts)

    @staticmethod
    def arguments(token: str | None, timeout: float) -> dict[str, Any]:
        """Of an httpx client."""
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        return {"headers": headers, "timeout": httpx.Timeout(timeout, read=max(timeout, 60.0)), "trust_env": False}

    @staticmethod
    def read(response: httpx.Response, kind: type[Found]) -> Found:
        """The answer in a response. Raises `ServiceError`."""
        require(response)
        try:
            return kind.model_validate_json(response.content)
        except ValidationError as error:
            raise NoService(response.url, error) from None


def require(response: httpx.Response) -> None:
    """Raise `ServiceError` for a refusal."""
    if response.is_success:
        return
    try:
        told = response.json()
        message, hint, code = told["message"], told["hint"], told["code"]
    except (ValueError, KeyError, TypeError):
        message, hint, code = f"The server answered {response.status_code}.", "Is that a kinship service?", ""
    raise ServiceError(response.status_code, message, hint=hint, told=code)


def _given(**query: Any) -> dict[str, Any]:
    return {name: value for name, value in query.items() if value is not None}
