"""The demo's family is made by arithmetic that does not depend on the processor's instruction set."""

import os
from dataclasses import replace
from pathlib import Path

import pytest

from kinship.errors import OutputExists
from service.demo.family import Family, make_family
from service.demo.reproducible import PLAIN, make_family_alike
from tests.service.demo.test_family import HASTY, digests


def weights(family: Family) -> dict[str, str]:
    return {name: digest for name, digest in digests(family).items() if name.endswith(".safetensors")}


def test_it_is_made_elsewhere_and_told_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MKL_CBWR", "AUTO")
    monkeypatch.delenv("ATEN_CPU_CAPABILITY", raising=False)
    steps: list[tuple[str, int, int]] = []
    family = make_family_alike(tmp_path / "family", HASTY, lambda *step: steps.append(step))
    assert steps == [("base", 1, 7), ("base", 2, 7), ("base", 3, 7), ("max", 4, 7), ("max", 5, 7),
                     ("max-count", 6, 7), ("max-count", 7, 7)]  # fmt: skip
    assert os.environ["MKL_CBWR"] == "AUTO"
    assert not PLAIN.keys() & os.environ.keys() - {"MKL_CBWR"}
    assert make_family(tmp_path / "family", HASTY) == family  # which is there already


def test_what_goes_wrong_there_is_told_here(tmp_path: Path) -> None:
    (tmp_path / "family").mkdir()
    (tmp_path / "family" / "thesis.tex").write_text("...")
    with pytest.raises(OutputExists):
        make_family_alike(tmp_path / "family", HASTY)


@pytest.mark.soak
def test_equal_bytes_whatever_is_asked_of_the_libraries(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = replace(HASTY, steps=30)
    families = []
    for number, environment in enumerate(({"ATEN_CPU_CAPABILITY": "avx2"}, {"MKL_ENABLE_INSTRUCTIONS": "AVX2"})):
        with monkeypatch.context() as here:
            for name, value in environment.items():
                here.setenv(name, value)
            families.append(make_family_alike(tmp_path / f"{number}", settings))
    assert weights(families[0]) == weights(families[1])
