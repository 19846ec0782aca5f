"""mergekit-evolve's configs, read as run files: what maps, and what has no counterpart here."""

from collections.abc import Mapping
from math import inf
from typing import Any, TypeGuard

from kinship.errors import InvalidConfig

_GENOME = {
    "models", "merge_method", "base_model", "tokenizer_source", "layer_granularity", "normalize",
    "allow_negative_weights", "smooth", "filters",
}  # fmt: skip
_TOP = {"genome", "tasks", "limit", "num_fewshot", "shuffle", "random_init", "apply_chat_template",
        "fewshot_as_multiturn"}  # fmt: skip
_OURS = {"task_path", "stop", "seed", "workers"}  # what there is said on the command line
_FEVALS = 100  # its default
_TASK = {"name", "weight", "metric"}
_HINT = "docs/search.md says what of mergekit-evolve's configs is read."


def is_evolve_config(content: object) -> TypeGuard[Mapping[str, Any]]:
    """Whether plain data are a mergekit-evolve config: a ``genome`` and ``tasks`` beside each other.

    >>> is_evolve_config({"genome": {}, "tasks": []}), is_evolve_config({"base": "b", "founders": []})
    (True, False)
    """
    return isinstance(content, Mapping) and "genome" in content and "tasks" in content


def translated(content: Mapping[str, Any], source: str) -> tuple[dict[str, Any], list[str]]:
    """The run file that says the same as a mergekit-evolve config, and what it does not say.

    Its CMA-ES becomes the strategy ``optuna`` with that sampler; what its command line says (where tasks are sought,
    how many candidates) are keys here. Raises `InvalidConfig` for keys that are known neither there nor here, for one
    that is missing, and for a task whose weight is not positive.
    """
    genome, tasks = content["genome"], content["tasks"]
    if not isinstance(genome, Mapping) or not isinstance(tasks, list):
        raise InvalidConfig(f"{source}: genome is to be a mapping, and tasks a list.", hint=_HINT)
    for place, given, known in (("genome", genome, _GENOME), ("the top", content, _TOP | _OURS)):
        if unknown := sorted(set(given) - known):
            raise InvalidConfig(f"{source} has the unknown key {unknown[0]!r} in {place}.", hint=_HINT)
    for key in ("models", "merge_method", "base_model"):
        if genome.get(key) is None:
            raise InvalidConfig(
                f"{source}: genome lacks {key!r}.",
                hint="A search here is among fine-tunes of one base: name it." if key == "base_model" else _HINT,
            )
    if not isinstance(genome["models"], list):
        raise InvalidConfig(f"{source}: genome.models is {genome['models']!r}; a list was expected.", hint=_HINT)
    if not tasks:
        raise InvalidConfig(f"{source}: tasks is empty; at least one was expected.", hint=_HINT)
    base, method = genome["base_model"], genome["merge_method"]
    notes = [f"{source} was read as a mergekit-evolve config: paths count from its folder, not from the working one."]
    founders = [model for model in genome["models"] if model != base]
    found_tasks, weights = [], {}
    for task in tasks:
        name, metric, weight = _task(task, source)
        if name in weights:
            raise InvalidConfig(f"{source}: the task {name} is listed twice.", hint="Give it one entry and one weight.")
        found_tasks.append({"task": name, **metric})
        weights[name] = weight
    strategy: dict[str, Any] = {"name": "optuna", "sampler": "cmaes"}
    if genome.get("filters"):
        strategy["coefficients"] = "modules"
        notes.append("filters: coefficients vary by attention, MLP and the rest, whatever the filters are.")
    elif genome.get("layer_granularity"):
        strategy |= {"coefficients": "layers", "layer_groups": 4}
        notes.append("layer_granularity: coefficients vary by 4 groups of layers (strategy.layer_groups).")
    for key, kept in (("smooth", False), ("allow_negative_weights", False), ("normalize", None)):
        if genome.get(key, kept) != kept:
            notes.append(f"{key}: has no counterpart; weights are shares between 0 and 1.")
    notes += [
        f"{key}: has no counterpart; documents are split by their content, and the seed is the run's."
        for key in ("shuffle", "random_init")
        if content.get(key)
    ]
    run: dict[str, Any] = {"base": base, "founders": founders, "merge": {"method": method}, "strategy": strategy}
    run["evaluate"] = {"tasks": found_tasks} | {
        key: content[key]
        for key in ("limit", "num_fewshot", "apply_chat_template", "fewshot_as_multiturn", "task_path")
        if content.get(key) is not None
    }
    run |= {"stop": {"evaluations": _FEVALS}} | {key: content[key] for key in _OURS - {"task_path"} if key in content}
    if set(weights.values()) != {1.0}:
        run["aggregate"] = {"kind": "weighted", "weights": weights}
    if "tokenizer_source" in genome:
        run["tokenizer_source"] = genome["tokenizer_source"]
    notes.append("Half of the documents are held out (evaluate.search_fraction); mergekit-evolve holds out none.")
    return run, notes


def _task(task: Any, source: str) -> tuple[str, dict[str, str], float]:
    """Name, metric and filter, and weight of one of its tasks."""
    if isinstance(task, str):
        return task, {}, 1.0
    if not isinstance(task, Mapping) or "name" not in task or (unknown := sorted(set(task) - _TASK)):
        odd = f"has the unknown key {unknown[0]!r}" if isinstance(task, Mapping) and "name" in task else "has no name"
        raise InvalidConfig(f"{source}: a task {odd}.", hint=_HINT)
    weight = task.get("weight", 1.0)
    if isinstance(weight, bool) or not isinstance(weight, int | float) or not 0 < weight < inf:
        raise InvalidConfig(
            f"{source}: the weight of {task['name']} is {weight!r}; a positive number was expected.",
            hint="A metric that is to become small has no counterpart: choose one that is to become large.",
        )
    metric, _, filtered = str(task.get("metric", "")).partition(",")
    found = {"metric": metric} if metric else {}
    return str(task["name"]), found | ({"filter": filtered} if filtered else {}), float(weight)
