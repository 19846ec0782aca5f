"""What others may rely on is written down, here and in docs/python.md: a name that goes or comes shows in a diff."""

import re
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

DOCUMENT = Path(__file__).parents[1] / "docs" / "python.md"

# The face of each package: its ``__all__``.
FACES: dict[str, str] = {
    "kinship": """
        CacheError Checkpoint Comparison ComparisonOptions EvaluationFailed GramTable Heritage IncomparableScores
        InvalidConfig KinshipError KinshipMatrix LedgerError METRICS MalformedCheckpoint Metric MismatchedModels
        NonFiniteWeights OutputExists OutputNotWritable Preflight ReferenceNotFound Table UnsupportedCheckpoint
        WorkersFailed advise cluster compare get_metric kinship_matrix neighbour_joining newick open_checkpoint
        preflight recorded_tree recover
    """,
    "merging": "",
    "evaluators": "",
    "search": "",
    "service": "",
}


@pytest.mark.parametrize("package", FACES)
def test_the_face_of_a_package_is_as_written_down(package: str) -> None:
    face = import_module(package)
    assert sorted(getattr(face, "__all__", [])) == sorted(FACES[package].split())


@pytest.mark.parametrize("package", [package for package, names in FACES.items() if names])
def test_public_names_exist_and_are_documented(package: str) -> None:
    _, _, section = DOCUMENT.read_text(encoding="utf-8").partition(f"\n## {package}\n")
    told = set(re.findall(r"`([A-Za-z_]\w*)", section.partition("\n## ")[0]))
    face = import_module(package)
    for name in FACES[package].split():
        public = getattr(face, name)
        assert getattr(public, "__doc__", None), f"{name} has no docstring"
        assert name in told, f"{name} is not in {DOCUMENT.name}, section {package}"


@pytest.mark.parametrize(
    ("module", "heavy"),
    [
        ("kinship", "numpy"),
        ("kinship.measures.metrics", "numpy"),
        ("kinship.measures.matrix", "numba"),
        ("kinship.measures.gram", "numba"),
        ("kinship.measures.comparison", "numba"),
        ("kinship.trees.dendrogram", "numba"),
        ("kinship.trees.recorded", "numpy"),
    ],
)
def test_importing_costs_no_more_than_it_must(module: str, heavy: str) -> None:
    """numba alone takes 60 MB and a third of a second."""
    code = f"import sys, {module}; sys.exit({heavy!r} in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
