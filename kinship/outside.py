"""Text from outside, as each kind of output shows it: names, paths, licences, whatever a file or a library says.

Whoever makes a model chooses its name, and whoever reads a table believes what it says. So nothing from outside moves a
cursor, forges a line, becomes markup, a formula or an end of something. There is one function for each kind of output:
`on_terminal`, `in_picture`, `in_chart`, `in_csv`, `in_markdown`, `in_xml`, and `json_text`, which alone is exact.
"""

import csv
import json
import re
from collections.abc import Iterable, Sequence
from html import escape
from typing import Any, TextIO

LONGEST_CAPTION = 48  # letters of a name in a picture; of longer ones the middle is left out

# What `str.isprintable` lets pass and nobody sees: fillers, joiners, variation selectors without an emoji to vary.
_UNSEEN = "\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180d\u180f\u2800\u3164\uffa0\U000e0100-\U000e01ef"
_SEEN = re.compile(f"[^{_UNSEEN}]*")
_NOT_XML = re.compile("[^\t\n\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_FORMULA = re.compile(r"\s*[=+\-@\uff1d\uff0b\uff0d\uff20]")  # the wide ones too, which spreadsheets take for them
_MARKDOWN = re.compile(r"[\\`*\[\]<>#|~$&]|\b_|_\b")
_NOT_PLAIN = re.compile("[^\x20-\x7e\n]")
_SECRETS = (
    (re.compile(r"(://)[^/\s@]+@"), r"\1...@"),
    (re.compile(r"\b(bearer\s+)[^\s'\"]+", re.IGNORECASE), r"\1..."),
    (re.compile(r"\bhf_\w+"), "hf_..."),
    (re.compile(r"((?:password|passwd|token|secret|api_?key)['\"]?\s*[=:]\s*)\S+", re.IGNORECASE), r"\1..."),
)


def without_secrets(text: str) -> str:
    """``text`` of a library or a traceback without passwords of URLs, tokens, and values that are called so.

    >>> without_secrets("postgresql://ann:pw@db/x password=abc hf_AbC token: q b'Bearer xyz'")
    "postgresql://...@db/x password=... hf_... token: ... b'Bearer ...'"
    """
    for pattern, replacement in _SECRETS:
        text = pattern.sub(replacement, text)
    return text


def on_terminal(text: object) -> str:
    r"""One line in which every letter is seen: control and invisible letters, line ends and what changes the direction
    of writing are written as Python would; a byte of a file name that is not UTF-8 as that byte.

    >>> print(on_terminal("\x1b[31mred\nforged\u202e, \udcff, 模型"))
    \x1b[31mred\nforged\u202e, \xff, 模型
    """
    text = str(text)
    if text.isprintable() and _SEEN.fullmatch(text):
        return text
    return "".join(letter if letter.isprintable() and _SEEN.fullmatch(letter) else _named(letter) for letter in text)


def in_picture(text: object) -> str:
    """As `on_terminal`, and short: a long name would leave a picture no room.

    >>> in_picture("n" * 100)
    'nnnnnnnnnnnnnnnnnnnnnnnn…nnnnnnnnnnnnnnnnnnnnnnn'
    """
    shown, half = on_terminal(text), LONGEST_CAPTION // 2
    return shown if len(shown) <= LONGEST_CAPTION else f"{shown[:half]}…{shown[1 - half :]}"


def captions(names: Iterable[str]) -> list[str]:
    """``names`` `in_picture`; those that would look alike are numbered.

    >>> captions(["a" * 60 + "1" + "z" * 60, "b", "a" * 60 + "2" + "z" * 60])[2]
    'aaaaaaaaaaaaaaaaaaaaaaaa…zzzzzzzzzzzzzzzzzzzzzzz (3)'
    """
    shown: dict[str, None] = {}
    for place, name in enumerate(names, 1):
        caption = in_picture(name)
        while caption in shown:
            caption, place = f"{in_picture(name)} ({place})", place + 1
        shown[caption] = None
    return list(shown)


def in_chart(text: object) -> str:
    """As `in_picture`, for Plotly, which reads tags and entities in its texts.

    >>> in_chart("<b>bold</b> & co")
    '&lt;b&gt;bold&lt;/b&gt; &amp; co'
    """
    return escape(in_picture(text), quote=False)


def in_csv(cell: object) -> object:
    """A cell of a table: text as `on_terminal`, behind a ``'`` where a spreadsheet would take it for a formula.

    Numbers stay; None and NaN are empty cells.

    >>> in_csv("=cmd|' /C calc'!A0"), in_csv("-x"), in_csv(-0.5), in_csv(float("nan"))
    ("'=cmd|' /C calc'!A0", "'-x", '-0.5', '')
    """
    if cell is None or cell != cell:
        return ""
    if isinstance(cell, str):
        return f"'{on_terminal(cell)}" if _FORMULA.match(cell) else on_terminal(cell)
    return repr(cell) if isinstance(cell, float) else cell


def write_csv(file: TextIO, rows: Iterable[Sequence[object]]) -> None:
    """Write ``rows``, every cell `in_csv`, floats in full precision."""
    csv.writer(file, lineterminator="\n").writerows([in_csv(cell) for cell in row] for row in rows)


def in_markdown(text: object) -> str:
    r"""Text in Markdown, one line, which is text there and nothing else.

    >>> print(in_markdown("a|b`c` <img src=x>"))
    a\|b\`c\` \<img src=x\>
    """
    return _MARKDOWN.sub(r"\\\g<0>", on_terminal(text))


def in_code(text: object) -> str:
    """One line between backticks of Markdown, which nothing in it can end.

    >>> in_code("a"), in_code("a`b")
    ('`a`', '`` a`b ``')
    """
    shown = on_terminal(text)
    fence = "`" * (1 + _longest_run(shown))
    return f"{fence} {shown} {fence}" if len(fence) > 1 else f"`{shown}`"


def markdown_block(text: str, language: str = "") -> str:
    r"""``text`` of several lines as a fenced block of Markdown, which nothing in it can end.

    >>> print(markdown_block("a: '```'\n", "yaml"), end="")
    ````yaml
    a: '```'
    ````
    """
    fence = "`" * max(3, 1 + _longest_run(text))
    return f"{fence}{language}\n{text}{'' if text.endswith(chr(10)) else chr(10)}{fence}\n"


def in_xml(text: str) -> str:
    r"""Text that XML can hold: what it cannot is written as Python would.

    >>> print(in_xml("a\x1b\udcff\nb"))
    a\x1b\xff
    b
    """
    return _NOT_XML.sub(lambda match: _named(match[0]), text)


def json_text(content: Any, *, indent: int | None = None, sort_keys: bool = False) -> str:
    r"""JSON, which reads back as it was; letters that are not seen, or that UTF-8 cannot hold, are escaped.

    Raises `ValueError` for NaN and infinity.

    >>> print(json_text({"模型": "\x9b31m\udcff\u202e"}))
    {"模型": "\u009b31m\udcff\u202e"}
    """
    text = json.dumps(content, indent=indent, sort_keys=sort_keys, ensure_ascii=False, allow_nan=False)
    return _NOT_PLAIN.sub(lambda match: match[0] if match[0].isprintable() else json.dumps(match[0])[1:-1], text)


def is_text(name: str) -> bool:
    r"""Whether UTF-8, and so an address, can hold ``name``: names of files need not be text.

    >>> is_text("模型"), is_text("a\udcff")
    (True, False)
    """
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def as_stored(text: str) -> str:
    r"""Text as a database can keep it: a byte of a file name that is not UTF-8 is written out.

    >>> print(as_stored("a\udcff"))
    a\xff
    """
    return text if text.isascii() else text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def json_in(encoding: str, text: str) -> str:
    """JSON ``text`` in ASCII where ``encoding`` may not hold all letters.

    >>> json_in("ascii", '"\N{DNA DOUBLE HELIX}"')
    '"\\\\ud83e\\\\uddec"'
    """
    if encoding.lower().replace("_", "-").startswith("utf-"):
        return text
    return re.sub(r"[^\x00-\x7f]", lambda match: json.dumps(match[0])[1:-1], text)


def _longest_run(text: str) -> int:
    """Of backticks."""
    return max(map(len, re.findall("`+", text)), default=0)


def _named(letter: str) -> str:
    """A letter as Python writes it in a string; a stray byte of a file name as that byte."""
    code = ord(letter)
    if 0xDC80 <= code <= 0xDCFF:
        return f"\\x{code - 0xDC00:02x}"
    return letter.encode("ascii", "backslashreplace").decode() if code > 0x7F else ascii(letter)[1:-1]
