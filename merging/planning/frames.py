"""Whose frame a merge has: tokenizer, chat template, generation config and the ids of special tokens."""

from collections.abc import Mapping
from typing import Any

from kinship.checkpoints.checkpoint import Checkpoint
from kinship.checkpoints.folder_files import read_text
from kinship.checkpoints.frame import GENERATION_NAME, TEMPLATE_NAME, chat_template_of, differences, frame_of
from kinship.errors import InvalidConfig
from merging.recipe.schema import Recipe


def frame_model(recipe: Recipe, models: Mapping[str, Checkpoint]) -> Checkpoint:
    """The model whose frame the merge gets: the one that ``generation_config`` names, else any of those merged, if what
    the recipe leaves open is alike in them; the base of task vectors is no matter.

    Raises `InvalidConfig` where they differ, naming each difference and what to write.
    """
    chosen = recipe.generation_config
    if chosen is not None and chosen not in models:
        raise InvalidConfig(
            f"generation_config: {chosen!r} is none of the models.", hint=f"Name one of: {', '.join(models)}."
        )
    merged = recipe.merged
    frames = [frame_of(models[key]) for key in merged]
    open_to_doubt = [difference for difference in differences(frames) if not _settled(recipe, difference)]
    if open_to_doubt:
        raise InvalidConfig(
            "The models have different tokenizers, templates or end tokens, and the merge can have but one: "
            + "; ".join(open_to_doubt)
            + ".",
            hint="Say whose they are: `tokenizer_source: union` (or one of the models), `chat_template: auto`, "
            f"`generation_config: {merged[0]}` (or another of them).",
        )
    return models[chosen or merged[0]]


def _settled(recipe: Recipe, difference: str) -> bool:
    """Whether the recipe says what is to become of a ``difference``."""
    if difference.startswith("chat template"):
        return recipe.chat_template is not None
    if difference.startswith(("generation config", "config")):
        return recipe.generation_config is not None
    return recipe.tokenizer_settings is not None


def frame_files(frame: Checkpoint, tokenizer: Checkpoint) -> dict[str, str]:
    """The files of ``frame`` that a merge with the tokenizer of another model needs beside that."""
    found = {}
    generation = read_text(frame.path, GENERATION_NAME) if frame.path.is_dir() else None
    if generation is not None:
        found[GENERATION_NAME] = generation
    template = chat_template_of(frame) if tokenizer.path != frame.path else None
    if template is not None:
        found[TEMPLATE_NAME] = template
    return found


def with_special_ids(config: Mapping[str, Any], frame: Mapping[str, Any]) -> dict[str, Any]:
    """``config`` with the ids of special tokens that the config ``frame`` has.

    >>> with_special_ids({"vocab_size": 8, "eos_token_id": 2}, {"eos_token_id": [2, 3], "vocab_size": 9})
    {'vocab_size': 8, 'eos_token_id': [2, 3]}
    """
    return dict(config) | {key: value for key, value in frame.items() if key.endswith("_token_id")}
