"""One object says how models are compared; what it cannot mean is refused in words."""

import pytest
from pydantic import ValidationError

from kinship.errors import InvalidConfig
from kinship.measures.options import ComparisonOptions


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"vocab": "partly"}, "'vocab' is 'partly'"),
        ({"device": "abacus"}, "'device' is 'abacus'"),
        ({"rank": 0}, "'rank' is 0"),
        ({"include": "("}, r"'\(' is no regular expression"),
        ({"exlude": "norm"}, "unknown key 'exlude'"),
    ],
)
def test_what_cannot_be_is_refused_in_words(given: dict[str, object], words: str) -> None:
    with pytest.raises(InvalidConfig, match=words):
        ComparisonOptions.model_validate(given)


def test_options_are_frozen_and_equal_by_value() -> None:
    options = ComparisonOptions(exclude="norm")
    assert options == ComparisonOptions(exclude="norm")
    assert options.selection.refusal("a.norm.weight") == "excluded by 'norm'"
    with pytest.raises(ValidationError):
        options.rank = 3  # type: ignore[misc]
