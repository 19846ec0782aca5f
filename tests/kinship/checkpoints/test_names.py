import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kinship.checkpoints.references import short_names


@pytest.mark.parametrize(
    ("ids", "want"),
    [
        (["/models/math", "/models/code"], ["math", "code"]),
        (["org/math", "other/math", "org/code"], ["org/math", "other/math", "org/code"]),
        (["x/math.safetensors", "y/code.safetensors"], ["math", "code"]),
        (["a/math", "math"], ["a/math", "math"]),
        (["m", "m.safetensors"], ["m", "m.safetensors"]),
        (["./m", "m"], ["./m", "m"]),
        (["v1.5/m"], ["m"]),
        (["", "."], ["", "."]),
        ([], []),
    ],
)
def test_short_names(ids: list[str], want: list[str]) -> None:
    assert short_names(ids) == want


@given(st.lists(st.text("ab./", max_size=6) | st.just("x.safetensors"), unique=True, max_size=6))
@settings(deadline=None)
def test_different_ids_have_different_names(ids: list[str]) -> None:
    assert len(set(short_names(ids))) == len(ids)
