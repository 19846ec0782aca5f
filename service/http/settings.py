"""What a server is started with."""

import ipaddress
import re
from dataclasses import dataclass
from pathlib import Path

from kinship.errors import InvalidConfig

PORT = 8421
LOOPBACK = ("localhost", "127.0.0.1", "::1")

# Headers of every response.
SENT = {
    "Content-Security-Policy": "default-src 'self'; script-src 'self'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data:; connect-src 'self'; object-src 'none'; base-uri 'none'; form-action 'self'; "
    "frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}


@dataclass(frozen=True)
class ServiceSettings:
    """A server over one folder, the workspace.

    token: everybody must show it; needed where ``host`` is not this machine's loopback. database: URL of a Postgres
    database for jobs and new runs; default: files in the folder. hosts: further names that it is called by. roots:
    further folders with models. allow_code: consent to what runs code of others: functions, commands, pickles. slots:
    devices that jobs take turns at, ``cpu`` or ``cuda:N``. most_queued: jobs waiting. most_starts: of a job whose
    process is lost without getting further. most_bytes: of a request's body. body_seconds: for it to arrive.
    """

    folder: Path
    host: str = "127.0.0.1"
    port: int = PORT
    token: str | None = None
    database: str | None = None
    hosts: tuple[str, ...] = ()
    roots: tuple[Path, ...] = ()
    allow_code: bool = False
    slots: tuple[str, ...] = ("cpu",)
    most_queued: int = 100
    most_starts: int = 5
    most_bytes: int = 1 << 20
    body_seconds: float = 30.0

    def __post_init__(self) -> None:
        """Raises `InvalidConfig` for what no server can be started with."""
        for folder in (self.folder, *self.roots):
            if not folder.is_dir():
                raise InvalidConfig(f"{folder} is no folder.", hint="Give the folder that holds runs and models.")
        for name in self.hosts:
            if not re.fullmatch(r"[\w.:\[\]-]+", name):
                raise InvalidConfig(f"{name!r} is no name of a host.", hint="Give it as a browser's address has it.")
        if self.token is not None and not (self.token.isascii() and self.token.isprintable() and len(self.token) >= 8):
            raise InvalidConfig("The token is not 8 or more plain characters.", hint="Try: openssl rand -hex 16")
        if self.token is None and not is_loopback(self.host):
            raise InvalidConfig(
                f"{self.host} can be reached from other machines, and there is no token.",
                hint="Give one with --token or in KINSHIP_TOKEN, or leave --host out.",
            )
        for slot in self.slots:
            if not re.fullmatch("cpu|cuda:[0-9]{1,3}", slot):
                raise InvalidConfig(f"There is no slot {slot!r}.", hint="Give cpu, or cuda:0, cuda:1 ...")

    @property
    def address(self) -> str:
        """Where a browser finds it."""
        host = "127.0.0.1" if self.host in {"0.0.0.0", "::"} else self.host
        return f"http://{f'[{host}]' if ':' in host else host}:{self.port}"

    @property
    def names(self) -> frozenset[str]:
        """What a Host header may say, ports apart: the names of loopback, the host and ``hosts``."""
        return frozenset(name.lower().strip("[]") for name in (*LOOPBACK, self.host, *self.hosts))


def is_loopback(host: str) -> bool:
    """Whether only programs of this machine reach ``host``.

    >>> is_loopback("127.0.0.1"), is_loopback("localhost"), is_loopback("0.0.0.0"), is_loopback("lab.example")
    (True, True, False, False)
    """
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False
