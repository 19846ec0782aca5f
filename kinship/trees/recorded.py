"""Recorded descent: what the files of a model say of its parents.

Read are, of each model's folder, ``lineage.json`` (ours), ``mergekit_config.yml`` and the head of ``README.md``
(``base_model``, ``base_model_relation``, ``license``, ``tags``), and ``adapter_config.json``. No weights are read.
"""

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import networkx as nx

from kinship.checkpoints.folder_files import CARD_NAME, find_file, front_matter, read_json, read_text
from kinship.checkpoints.hub import fetch_documents
from kinship.checkpoints.references import Fetch, listed, locate, parse_reference
from kinship.errors import InvalidConfig, MalformedCheckpoint
from kinship.safe_yaml import InvalidYaml, load_yaml_documents
from kinship.trees.graph import add_descent, add_member, placed

if TYPE_CHECKING:
    from kinship.trees.graph import Tree

LINEAGE_NAME, RECIPE_NAME, ADAPTER_NAME = "lineage.json", "mergekit_config.yml", "adapter_config.json"
_WEIGHTS = (".safetensors", ".bin", ".gguf", ".pt", ".pth")
_OF_MODELS = ("config.json", LINEAGE_NAME, RECIPE_NAME, ADAPTER_NAME, CARD_NAME)
_RELATIONS = {"finetune": "finetune", "adapter": "lora", "merge": "merge", "quantized": "quantized"}

Parents = list[tuple[str, str]]
"""(parent, kind of descent) as a file names them."""


def recorded_tree(models: Iterable[str | Path], fetch: Fetch = fetch_documents) -> "Tree":
    """The family tree of ``models`` (folders or Hub ids) as their files tell it; see `kinship.trees.graph`.

    Parents that are given, by the same reference or another one of the same folder, are one node with them; other
    parents are nodes with ``given`` false, whose own files are not looked for. Of the Hub, only the files above are
    downloaded. What is there and no model is left out: the graph's ``no_models`` has why, by reference.
    Raises `ReferenceNotFound`, `MalformedCheckpoint` naming a file that cannot be read, and `InvalidConfig` where none
    is a model, or none is given.
    """
    given = [str(model) for model in listed(models)]
    if not given:
        raise InvalidConfig("A family tree needs at least one model.", hint="Give folders of models, or Hub ids.")
    tree: Tree = nx.DiGraph()
    folders = {model: locate(parse_reference(model), fetch=fetch) for model in given}
    foreign = {model: why for model, folder in folders.items() if os.path.exists(model) and (why := _no_model(folder))}
    tree.graph["no_models"] = foreign
    members = [model for model in given if model not in foreign]
    if not members:
        (first, why), *_ = foreign.items()
        raise InvalidConfig(f"{first} is no model: {why}.", hint="Give folders that hold config.json and weights.")
    folders = {model: folders[model] for model in members}
    known = {os.path.realpath(folder): model for model, folder in folders.items()}
    for model in members:
        add_member(tree, model, given=True)
    for model, folder in folders.items():
        if not folder.is_dir():
            continue
        card = front_matter(folder)
        licence = card.get("license")
        add_member(
            tree,
            model,
            licence=licence.lower() if isinstance(licence, str) else None,
            tags=[tag for tag in _listed(card.get("tags")) if isinstance(tag, str)] or None,
            recipe=read_text(folder, RECIPE_NAME),
        )
        for source, read in _READERS.items():
            for parent, kind in read(folder, card):
                known_as = known.get(os.path.realpath(parent), parent)
                if known_as != model:
                    add_descent(tree, known_as, model, kind, source)
    for model, folder in folders.items():
        base = _base_of(folder)
        if base is not None:
            _root(tree, known.get(os.path.realpath(base), base), model)
    return placed(tree)


def _root(tree: "Tree", base: str, model: str) -> None:
    """Add that the parents of ``model`` were fine-tuned from ``base``, where no file of theirs says otherwise."""
    if base in tree and tree.in_degree(base):
        return
    for founder in [one for one in tree.predecessors(model) if one != base and not tree.in_degree(one)]:
        add_descent(tree, base, founder, "finetune", LINEAGE_NAME)
    add_member(tree, base, role="base")


def _no_model(place: Path) -> str | None:
    """Why what lies there is no model; None where it may be one: weights, a config, or what we read of descent."""
    if not place.is_dir():
        return None if place.suffix in _WEIGHTS else "a file, and not of weights"
    if any(file.name in _OF_MODELS or file.suffix in _WEIGHTS for file in place.iterdir()):
        return None
    return "a folder without config.json, weights or model card"


def _of_lineage(folder: Path, _: Mapping[str, Any]) -> Parents:
    file = find_file(folder, LINEAGE_NAME)
    if file is None:
        return []
    parents = read_json(file).get("parents")
    return [
        (parent["model"], "merge")
        for parent in _listed(parents)
        if isinstance(parent, Mapping) and isinstance(parent.get("model"), str)
    ]


def _base_of(folder: Path) -> str | None:
    """What the founders of a search were fine-tuned from, as the search says that made ``folder``."""
    file = find_file(folder, LINEAGE_NAME) if folder.is_dir() else None
    base = read_json(file).get("base") if file is not None else None
    return base if isinstance(base, str) and base else None


def _of_recipe(folder: Path, _: Mapping[str, Any]) -> Parents:
    text = read_text(folder, RECIPE_NAME)
    try:
        documents = load_yaml_documents(text or "")
    except InvalidYaml as error:
        raise MalformedCheckpoint(f"{folder / RECIPE_NAME} is not valid YAML: {error}.", hint="Mend it.") from None
    between = {step["name"] for step in documents if isinstance(step, Mapping) and isinstance(step.get("name"), str)}
    return [(model, "merge") for model in dict.fromkeys(_models_of(documents)) if model not in between]


def _of_card(_: Path, card: Mapping[str, Any]) -> Parents:
    parents = [parent for parent in _listed(card.get("base_model")) if isinstance(parent, str)]
    relation, tags = card.get("base_model_relation"), _listed(card.get("tags"))
    kind = _RELATIONS.get(relation, "unknown") if isinstance(relation, str) else "unknown"
    if kind == "unknown" and ("merge" in tags or len(parents) > 1):
        kind = "merge"
    return [(parent, kind) for parent in parents]


def _of_adapter(folder: Path, _: Mapping[str, Any]) -> Parents:
    file = find_file(folder, ADAPTER_NAME)
    base = read_json(file).get("base_model_name_or_path") if file is not None else None
    return [(base, "lora")] if isinstance(base, str) and base else []


# The most telling first: what the first says of an edge stays.
_READERS: Mapping[str, Callable[[Path, Mapping[str, Any]], Parents]] = {
    LINEAGE_NAME: _of_lineage,
    RECIPE_NAME: _of_recipe,
    ADAPTER_NAME: _of_adapter,
    CARD_NAME: _of_card,
}


def _models_of(content: Any) -> Iterator[str]:
    """Every model that a recipe of mergekit's, or a recipe inside it, names."""
    match content:
        case Mapping():
            for key, value in content.items():
                if key in ("model", "base_model") and isinstance(value, str):
                    yield value
                elif key in ("model", "base_model") and isinstance(value, Mapping) and "merge_method" not in value:
                    named = value.get("path") or value.get("model")
                    yield from [named] if isinstance(named, str) else _models_of(value)
                elif key not in ("tokenizer", "parameters"):
                    yield from _models_of(value)
        case list():
            for item in content:
                yield from _models_of(item)


def _listed(value: Any) -> list[Any]:
    return list(value) if isinstance(value, list | tuple) else [] if value is None else [value]
