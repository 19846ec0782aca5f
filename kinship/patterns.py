"""Regular expressions of others, matched in linear time: by RE2, where it and Python's ``re`` mean the same.

What ``re`` can express and RE2 cannot (look-around, references to groups, atomic groups) is refused, and so is what
the two read differently.
"""

import re
import warnings
from functools import cache, lru_cache
from typing import Any

from kinship.errors import InvalidConfig

MAX_LENGTH = 10_000

# Read by RE2 as something else than by `re`: a class by its name, a repetition without its lower bound.
_READ_APART = re.compile(r"\[:|\{,")
# What these match among letters beyond ASCII, or at the end of a line, differs.
_OF_PLAIN_TEXT = re.compile(r"\\[wWdDsSbB]|\$|\(\?[a-zA-Z]")
_PLAIN = re.compile(r"[ -~]*")


class UnsupportedPattern(InvalidConfig):
    """A regular expression that cannot be matched in linear time."""


class Pattern:
    """A regular expression; cost of a match: proportional to the length of the text.

    Raises `InvalidConfig` for what is no regular expression, of the kind `UnsupportedPattern` for one that cannot be
    matched in linear time.

    >>> Pattern("q_proj|v_proj").at_end_of("layers.0.q_proj"), Pattern("proj").found_in("layers.0.q_proj")
    (True, True)
    """

    def __init__(self, text: str) -> None:
        self.text = text
        self._anywhere = _OF_PLAIN_TEXT.search(text) is None
        _compiled(text)

    def found_in(self, name: str) -> bool:
        """Whether it matches somewhere in ``name``, as `re.search`."""
        return self._matches(_compiled(self.text), name)

    def at_end_of(self, name: str) -> bool:
        """Whether it matches all of ``name``, or all that follows one of its dots, as peft asks."""
        return self._matches(_compiled(rf"\A(.*\.)?({self.text})$"), name)

    def _matches(self, compiled: Any, name: str) -> bool:
        if not self._anywhere and not _PLAIN.fullmatch(name):
            raise UnsupportedPattern(
                f"The pattern {self.text[:200]!r} cannot be matched with the name {name[:200]!r}, which is not ASCII.",
                hint=r"Use no \w, \d, \s, \b, $ or flags in it.",
            )
        return compiled.search(name) is not None


@cache
def _options() -> Any:
    import re2

    options = re2.Options()
    options.log_errors = False
    return options


@lru_cache(maxsize=4096)
def _compiled(text: str) -> Any:
    import re2

    try:
        if len(text) > MAX_LENGTH:
            raise re.error(f"it has {len(text)} characters, more than {MAX_LENGTH}")
        with warnings.catch_warnings(action="ignore"):  # of what later versions may read differently
            re.compile(text)
    except (re.error, OverflowError, RecursionError) as error:
        raise InvalidConfig(f"{text[:200]!r} is no regular expression: {error}.", hint="Correct it.") from None
    apart = _READ_APART.search(text)
    try:
        if apart:
            raise re2.error(f"{apart[0]!r} is read in two ways")
        return re2.compile(text, _options())
    except re2.error as error:
        said = error.args[0].decode(errors="replace") if isinstance(error.args[0], bytes) else error
        raise UnsupportedPattern(
            f"The regular expression {text[:200]!r} cannot be matched in linear time: {said}.",
            hint="Write it without look-around, references to groups, and repetitions of more than 1000.",
        ) from None
