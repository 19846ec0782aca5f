"""What `load_yaml` reads is compared with what PyYAML wrote; what it refuses has hung or crashed other readers."""

import math
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from kinship.checkpoints.folder_files import front_matter
from kinship.errors import InvalidConfig, MalformedCheckpoint
from kinship.safe_yaml import InvalidYaml, load_yaml
from kinship.trees.recorded import recorded_tree
from kinship.validation import read_yaml

PLAIN = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs"]))
    | st.sampled_from(["no", "on", "Yes", "010", "1e5", "0o17", "1:30", "1_000", "2024-01-01", "=", "<<", "~", ".5"]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text("abn01:", max_size=3), inner, max_size=4),
    max_leaves=12,
)

NINES = "a0: &a0 [x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"a{i}: &a{i} [{','.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 10)
)
MERGES = "a0: &a0 {k: v}\n" + "".join(f"a{i}: &a{i} {{<<: [{','.join([f'*a{i - 1}'] * 9)}]}}\n" for i in range(1, 9))
BOMBS = {"aliases": NINES, "merge keys": MERGES}


@settings(max_examples=100, deadline=None)
@given(PLAIN)
def test_what_pyyaml_writes_is_read_as_it_was(content: Any) -> None:
    assert load_yaml(yaml.safe_dump(content, allow_unicode=True)) == content


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("", None), ("~", None), ("Null", None), ("TRUE", True), ("no", "no"), ("Off", "Off"), ("010", "010"),
        ("0x1F", "0x1F"), ("1:30", "1:30"), ("2024-01-01", "2024-01-01"), ("1_000", "1_000"), ("1e5", "1e5"),
        ("+7", 7), ("-0", 0), ("1.5e+3", 1500.0), ("-.inf", -math.inf), ("'1'", "1"), ("! 1", "1"), ("!!str 1", "1"),
        ("!!float 1", 1.0), ("=", "="), ("{a: &x {p: 1, q: 2}, b: {<<: *x, q: 3}}",
                                          {"a": {"p": 1, "q": 2}, "b": {"p": 1, "q": 3}}),
        ("[&x {p: 1}, &y {p: 2, q: 2}, {<<: [*x, *y]}]", [{"p": 1}, {"p": 2, "q": 2}, {"p": 1, "q": 2}]),
    ],
)  # fmt: skip
def test_words_mean_what_the_schema_says(text: str, value: Any) -> None:
    found = load_yaml(text)
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (NINES, "more than 200000 values"), (MERGES, "more than 200000 values"),
        ("a: 1\n'a': 2", "line 2, column 1: 'a' is given twice"), ("{<<: {a: 1}, <<: {b: 1}}", "'<<' is given twice"),
        ("&a [*a]", "refers to nothing before it"), ("*a", "refers to nothing"), ("? [a]\n: 1", "a key is a list"),
        ("{<<: 1}", "merges what is no mapping"), ("!!bool x", "'x' is no bool"), ("!!int 1.5", "'1.5' is no int"),
        ("!!timestamp 2024-01-01", "not known here"), ("!!set {a, b}", "not known here"),
        ("!!python/object/apply:os.system ['x']", "not known here"), ("--- 1\n--- 2", "it has 2 documents"),
        ("[" * 100_000 + "]" * 100_000, "nest deeper"), ("{a: " * 200 + "1" + "}" * 200, "nest deeper"),
        ("9" * 5000, "a number of 5000 digits"), ("a: [", "line 2, column 1"), ("a\0b", "no text of YAML|line 1"),
        ("'\ud800'", "no text of YAML"), ("x" * ((4 << 20) + 1), "at most 4194304 are read"),
        ("[" + "a," * 300_000 + "]", "more than 200000 values"),
    ],
)  # fmt: skip
def test_what_is_no_plain_data_is_refused(text: str, problem: str) -> None:
    with pytest.raises(InvalidYaml, match=problem):
        load_yaml(text)


@pytest.mark.parametrize("bomb", BOMBS.values(), ids=BOMBS)
def test_every_yaml_that_is_read_is_bounded(bomb: str, tmp_path: Path) -> None:
    for name, text in {"README.md": f"---\n{bomb}---\n", "mergekit_config.yml": bomb, "run.yml": bomb}.items():
        (tmp_path / name).write_text(text)
    assert front_matter(tmp_path) == {}
    with pytest.raises(MalformedCheckpoint, match=r"mergekit_config\.yml is not valid YAML"):
        recorded_tree([str(tmp_path)])
    with pytest.raises(InvalidConfig, match=r"run\.yml is not valid YAML: .*200000 values"):
        read_yaml(tmp_path / "run.yml", "run file")


def test_a_tag_of_ones_own_is_made_of_its_scalar() -> None:
    assert load_yaml("f: !function utils.f", {"!function": str.upper}) == {"f": "UTILS.F"}


def test_nobody_reads_yaml_otherwise() -> None:
    """In a file, or a form of the service: what is not bounded takes a kilobyte to fill all memory."""
    root = Path(__file__).parents[2]
    packages = ("kinship", "merging", "evaluators", "search", "service")
    texts = {file: file.read_text(encoding="utf-8") for package in packages for file in (root / package).rglob("*.py")}
    assert [file for file, text in texts.items() if re.search(r"\byaml\.(\w+_)?load\w*\(", text)] == []
    assert [file.name for file, text in texts.items() if "yaml.parse(" in text] == ["safe_yaml.py"]
