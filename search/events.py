"""What a run tells of itself while it goes on."""

from collections.abc import Callable, Mapping
from typing import Any

Observer = Callable[[str, Mapping[str, Any]], None]
"""Told of events as (name, facts); a result is told only once it is durable. docs/formats.md lists the events."""


def silent(name: str, facts: Mapping[str, Any]) -> None:
    """The observer that does nothing."""
