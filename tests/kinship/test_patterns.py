"""Matches are compared with what peft and Python's `re` say; hostile patterns are those that `re` never finishes."""

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from peft.utils.other import get_pattern_key

from kinship.errors import InvalidConfig
from kinship.patterns import Pattern, UnsupportedPattern

NAMES = ["model.layers.0.self_attn.q_proj", "model.layers.11.mlp.up_proj", "lm_head", "q_proj", "a_b", "Q_PROJ.1", ""]
PIECES = st.sampled_from(
    ["q_proj", "v", ".", r"\.", ".*", "[a-z]+", r"\d{1,2}", r"\w", "(0|11)", "(?:q|up)_", "|", "^", "$", "?", "layers"]
)


@settings(max_examples=200, deadline=None)
@given(st.lists(PIECES, max_size=6).map("".join), st.sampled_from(NAMES))
def test_it_matches_as_peft_and_re_do(text: str, name: str) -> None:
    try:
        expected = get_pattern_key([text], name) == text and re.match(rf"(.*\.)?({text})$", name) is not None
    except re.error:
        with pytest.raises(InvalidConfig):
            Pattern(text).at_end_of(name)
        return
    try:
        pattern = Pattern(text)
    except InvalidConfig:
        return  # what re alone can read
    assert pattern.at_end_of(name) == expected
    assert pattern.found_in(name) == (re.search(text, name) is not None)


@pytest.mark.parametrize(
    "text",
    [
        "(a+)+$", "(([a-z.0-9_])*)*X", ".*" * 200 + "X",
        "".join(f"({letter}|({letter}))" for letter in "model_layers_0_self_attn_q_pro") + "X",
        "".join(f"({letter}|({letter})|(({letter})))" for letter in "model_layers_0_self_attn_q_pro") + "X",
    ],
)  # fmt: skip
def test_hostile_patterns_are_matched_in_linear_time(text: str) -> None:
    name = "model_layers_0_self_attn_q_proj" + "a" * 10_000
    assert Pattern(text).at_end_of(name) is False


@pytest.mark.parametrize(
    "text",
    ["(?=q)q", "(?<!x)q", r"(q)\1", "(?>a+)", "a++", r"q\Z", "[[:alpha:]]", "a{,3}", "a{1001}", "(?x) a", "(?a)q"],
)
def test_what_is_not_linear_or_read_in_two_ways_is_refused(text: str) -> None:
    with pytest.raises(UnsupportedPattern, match="in linear time"):
        Pattern(text)


@pytest.mark.parametrize("text", ["(", "[a", "a**", r"\pL", r"\Qa\E", "x" * 10_001, "a)|(b"])
def test_what_is_no_regular_expression_is_refused(text: str) -> None:
    with pytest.raises(InvalidConfig, match="no regular expression"):
        Pattern(text)


@pytest.mark.parametrize(("text", "name"), [(r"\w+", "é"), ("(?i)k", "\u212a"), ("a$", "a\n"), (r"\d", "٣")])
def test_names_that_the_engines_read_differently_are_refused(text: str, name: str) -> None:
    with pytest.raises(UnsupportedPattern, match="not ASCII"):
        Pattern(text).found_in(name)
    assert Pattern("é.").found_in("é٣")
