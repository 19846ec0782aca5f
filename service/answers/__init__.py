"""What commands, routes and pages show: arguments in, one documented object out; nothing is printed.

docs/formats.md describes every schema. Names are imported when they are asked for.
"""

from kinship.faces import lazy_face

_NAMES = {
    "base": ("Answer", "Part"),
    "error": ("Error",),
    "matrix": ("Matrix", "MatrixPlan", "measure_matrix", "plan_matrix"),
    "advice": ("Advice", "advise_pairs"),
    "dendrogram": ("Dendrogram", "join_models"),
    "tree": ("FamilyTree", "RecoveredHeritage", "RunLineage", "findings_of", "trace_models", "trace_run"),
    "merge": ("MergePlan", "Merged", "merge_models", "plan_merging"),
    "alignment": ("Aligned", "align_model"),
    "extraction": ("ExtractedLora", "extract_adapter"),
    "methods": ("Methods", "list_methods"),
    "checks": ("FolderChecks", "RunChecks", "check_folder", "check_run"),
    "score": ("Scores", "score_models"),
    "dry_run": ("plan_search",),
    "plan": ("SearchPlan",),
    "events": (
        "Finished", "Generation", "IndividualFailed", "IndividualScored", "Phase", "Results", "SearchStopped",
        "Started", "event_of", "read_event",
    ),
    "runs": ("Failures", "ImportedRun", "Runs", "failures_of", "import_run", "list_runs", "open_run"),
    "export": ("RunArchive", "RunExport", "archive_of", "export_of"),
    "comparison": ("ComparedRuns", "compare_runs"),
    "method_comparison": ("MethodComparison", "compare_methods", "read_comparison"),
    "compared_families": ("ComparedFamilies", "pool_families"),
    "cache": (
        "CacheChecks", "CacheList", "CachePrune", "CacheSize", "check_cache", "list_cache", "measure_cache",
        "prune_cache",
    ),
    "jobs": ("Job", "JobLog", "Jobs"),
    "served": (
        "Artefacts", "Health", "IndividualPage", "ModelFacts", "RunEvent", "RunEvents", "ServedComparison",
        "ServedComparisons", "ServedModels", "ServedRun", "ServedRuns",
    ),
    "index": (
        "IndexedModels", "Relatives", "add_models", "find_relatives", "list_index", "remove_models",
    ),
}  # fmt: skip
_HOMES = {name: f"{__name__}.{module}" for module, names in _NAMES.items() for name in names}

__all__ = sorted(_HOMES)


__getattr__ = lazy_face(__name__, _HOMES)
