"""What others may rely on is written down, here and in docs/python.md: a name that goes or comes shows in a diff."""

import re
import subprocess
import sys
from importlib import import_module
from inspect import isfunction
from pathlib import Path

import pytest

DOCUMENT = Path(__file__).parents[1] / "docs" / "python.md"

# The face of each package: its ``__all__``.
FACES: dict[str, str] = {
    "kinship": """
        CacheError Checkpoint Comparison ComparisonOptions EvaluationFailed GramTable Heritage IncomparableScores
        InputsChanged InvalidConfig KinshipError KinshipMatrix KinshipWarning LedgerError METRICS MalformedCheckpoint
        Metric
        MismatchedModels NonFiniteWeights OutputExists OutputNotWritable Preflight ReferenceNotFound SystemRefused Table
        UnsupportedCheckpoint WorkersFailed advise cluster compare get_metric kinship_matrix neighbour_joining newick
        open_checkpoint preflight recorded_tree recover
    """,
    "merging": """
        Basis Check Combination Genome MergeMethod MergePlan Parameter Recipe Span TensorStream get_method load_recipe
        materialise open_span parse_recipe plan_merge plan_summary planned span_method tensor_method verify_folder
        write_merge
    """,
    "evaluators": """
        Aggregate CachedEvaluator Candidate Estimate EvaluateSettings Evaluator Failure PairedDifference Score
        ScoreCache Task TaskScore WorkerPool WorkerSettings fitness make_evaluator make_pool open_cache
        paired_difference
    """,
    "search": """
        Context Individual Ledger LedgerLocation Observer Proposal Record RunConfig Search Strategy archive
        best_offspring export_run lineage_of load_config parse_config ranked restore verify_ledger
    """,
    "service": "",
    "service.answers": """
        Advice Aligned Answer Artefacts CacheChecks CacheList CachePrune CacheSize ComparedFamilies ComparedRuns
        Dendrogram Error ExtractedLora Failures FamilyTree Finished FolderChecks Generation Health ImportedRun
        IndexedModels IndividualFailed IndividualPage IndividualScored Job JobLog Jobs Matrix MatrixPlan
        MergePlan Merged MethodComparison Methods ModelFacts Part Phase RecoveredHeritage Relatives Results
        RunArchive RunChecks RunEvent RunEvents RunExport RunLineage Runs Scores SearchPlan SearchStopped
        ServedComparison ServedComparisons ServedModels ServedRun ServedRuns Started add_models advise_pairs
        align_model archive_of check_cache check_folder check_run compare_methods compare_runs event_of
        export_of extract_adapter failures_of find_relatives findings_of import_run join_models list_cache
        list_index list_methods list_runs measure_cache measure_matrix merge_models open_run plan_matrix
        plan_merging plan_search pool_families prune_cache read_comparison read_event remove_models score_models
        trace_models trace_run
    """,
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
        if isinstance(public, type) or isfunction(public):
            assert public.__doc__, f"{name} has no docstring"
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
        ("service.http.app", "numba"),
        ("service.http.pages", "scipy"),
    ],
)
def test_importing_costs_no_more_than_it_must(module: str, heavy: str) -> None:
    """numba alone takes 60 MB and a third of a second."""
    code = f"import sys, {module}; sys.exit({heavy!r} in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
