import csv
import io
import json
import re
from pathlib import Path
from xml.etree import ElementTree

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from kinship.outside import (
    captions,
    in_code,
    in_csv,
    in_markdown,
    in_xml,
    json_in,
    json_text,
    markdown_block,
    on_terminal,
    write_csv,
)

ROOT = Path(__file__).parents[2]
ANY = st.text(st.characters(codec=None))  # surrogates too


@given(ANY)
@example("\x1b]0;x\x07\n\u2028\u202e\u200b\u3164\udcff")
def test_one_line_of_letters_that_are_seen(text: str) -> None:
    shown = on_terminal(text)
    assert shown.isprintable()
    assert on_terminal(shown) == shown
    assert shown == text or re.search(r"\\(x|u|U|n|r|t)", shown)


@given(st.recursive(ANY | st.none() | st.integers(), lambda inner: st.lists(inner) | st.dictionaries(ANY, inner)))
def test_json_reads_back_exactly(content: object) -> None:
    for indent in (None, 2):
        text = json_text(content, indent=indent)
        assert json.loads(text) == content
        assert all(line.isprintable() for line in text.split("\n"))
        assert text.encode("utf-8")
    assert json.loads(json_in("ascii", text)) == content
    assert json_in("ascii", text).isascii()


def test_json_has_no_nan() -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        json_text({"x": float("nan")})


@given(st.lists(st.lists(ANY, min_size=2, max_size=2), min_size=1))
@example([["=cmd|' /C calc'!A0", "+1"], ["\t@x", "  -y\r\n=z"]])
def test_a_table_has_its_rows_and_no_formula(rows: list[list[str]]) -> None:
    file = io.StringIO()
    write_csv(file, rows)
    assert file.getvalue().count("\n") == len(rows)
    read = list(csv.reader(io.StringIO(file.getvalue())))
    assert read == [[in_csv(cell) for cell in row] for row in rows]
    assert not [cell for row in read for cell in row if re.match(r"\s*[=+\-@\uff1d\uff0b\uff0d\uff20]", cell)]


@given(ANY)
def test_xml_holds_it(text: str) -> None:
    element = ElementTree.Element("a", {"b": in_xml(text)})
    assert ElementTree.fromstring(ElementTree.tostring(element)).get("b") == in_xml(text)


@given(ANY)
@example("a`b``c")
def test_markdown_is_not_ended(text: str) -> None:
    assert "\n" not in in_markdown(text) + in_code(text)
    assert not re.search(r"(?<!\\)(\\\\)*[|`<>\[\]]", in_markdown(text))
    fence = re.match("`+", in_code(text))
    assert fence
    assert fence[0] not in re.findall("`+", in_code(text)[len(fence[0]) : -len(fence[0])])
    block = markdown_block(text, "yaml")
    fence = re.match("`+", block)
    assert fence
    assert not [line for line in block.split("\n")[1:-2] if line.strip().startswith(fence[0])]


@given(st.lists(ANY))
@example(["x", "x", "x (2)", "x (3)"])
def test_captions_tell_names_apart(names: list[str]) -> None:
    shown = captions(names)
    assert all(len(name) <= 60 for name in shown)
    assert len(set(shown)) == len(names)


AROUND = r"\bConsole\(|rich\.markup|csv\.writer\(|\.savefig\(|\bEnvironment\(|json\.dump\(|\bText\("
ALLOWED = {"kinship/outside.py", "kinship/pictures/canvas.py", "service/terminal.py", "service/pages/environment.py"}


def test_nobody_goes_around_the_one_function_of_an_output() -> None:
    files = [file for package in ("kinship", "merging", "search", "service") for file in (ROOT / package).rglob("*.py")]
    around = {str(file.relative_to(ROOT)) for file in files if re.search(AROUND, file.read_text(encoding="utf-8"))}
    assert around == ALLOWED
