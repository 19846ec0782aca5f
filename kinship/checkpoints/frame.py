"""The frame of a model: what a score and a child depend on beside weights and architecture.

Tokenizer, added tokens, chat template, generation config with its end tokens, and the ids of special tokens in the
config. A pretrained model and an instruct model made of it have the same architecture and different frames.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from reprlib import repr as brief
from typing import Any

from kinship.checkpoints.checkpoint import Checkpoint
from kinship.checkpoints.folder_files import find_file, read_json, read_text, text_config
from kinship.errors import InvalidConfig

TEMPLATE_NAME, GENERATION_NAME = "chat_template.jinja", "generation_config.json"
MAX_TOKENIZER_BYTES = 256 << 20

# Files that make up a tokenizer, whatever kind it is of; generation config and templates are apart.
TOKENIZER_FILES = (
    "tokenizer*", "special_tokens_map.json", "added_tokens.json", "vocab*", "merges.txt", "*.tiktoken", "spiece.model",
    "sentencepiece*.model", "*.bpe",
)  # fmt: skip
FRAME_FILES = (*TOKENIZER_FILES, "*.jinja", "chat_template.json", GENERATION_NAME)

# What files say of their past, or twice.
_PROVENANCE = {
    "_from_model_config", "_commit_hash", "_name_or_path", "name_or_path", "transformers_version", "tokenizer_file",
    "special_tokens_map_file", "processor_class", "auto_map", "added_tokens_decoder", "is_local", "local_files_only",
    "chat_template",
}  # fmt: skip


# Facts that say which token a number is.
_NUMBERING = ("vocabulary", "added tokens", "vocab.json", "vocab.txt", "added_tokens.json", "tokenizer.model")


@dataclass(frozen=True)
class Frame:
    """The frame of the model ``id``: ``facts`` by what people call them; models with equal facts share a frame."""

    id: str
    facts: Mapping[str, Any]

    @property
    def end_tokens(self) -> list[int]:
        """Ids at which a generation ends."""
        found = self.facts.get("generation config: eos_token_id", self.facts.get("config: eos_token_id"))
        return [] if found is None else list(found) if isinstance(found, list) else [found]


def frame_of(model: Checkpoint) -> Frame:
    """The frame of ``model``, from the small files of its folder; without a folder it has none.

    Raises `MalformedCheckpoint` for files that cannot be read.
    """
    if not model.path.is_dir():
        return Frame(model.id, {})
    facts: dict[str, Any] = {}
    facts |= _tokenizer(model.path)
    template = chat_template_of(model)
    facts |= {"chat template": template} if template else {}
    file = find_file(model.path, GENERATION_NAME)
    if file is not None:
        facts |= _labelled("generation config", read_json(file))
    config = text_config(model.config)
    ids = {key: value for key, value in config.items() if key.endswith("_token_id") and value is not None}
    return Frame(model.id, facts | _labelled("config", ids))


def chat_template_of(model: Checkpoint) -> str | None:
    """How the model's tokenizer writes conversations, as a Jinja template; None where it does not say."""
    template = read_text(model.path, TEMPLATE_NAME, strict=True) if model.path.is_dir() else None
    if template is not None:
        return template
    for name in ("chat_template.json", "tokenizer_config.json"):
        file = find_file(model.path, name) if model.path.is_dir() else None
        found = read_json(file).get("chat_template") if file is not None else None
        if found:
            return found if isinstance(found, str) else json.dumps(found, sort_keys=True)
    return None


def differences(frames: Sequence[Frame]) -> list[str]:
    """In what ``frames`` differ, one sentence each; nothing where they are one frame."""
    found = []
    for key in sorted({key for frame in frames for key in frame.facts}):
        values = [frame.facts.get(key) for frame in frames]
        if any(value != values[0] for value in values[1:]):
            said = ", ".join(f"{_short(value)} in {frame.id}" for value, frame in zip(values, frames, strict=True))
            found.append(f"{key}: {said}")
    return found


def choose_frame(wanted: str | None, base: Checkpoint, founders: Sequence[Checkpoint]) -> Checkpoint:
    """The model whose frame a search runs in: the one ``wanted`` (by id), else any founder, if they share one frame.

    Raises `InvalidConfig` for a model that is not there, and where the founders' frames differ, naming each difference
    and what to write.
    """
    models = {model.id: model for model in [base, *founders]}
    if wanted is not None:
        if wanted not in models:
            raise InvalidConfig(f"frame: {wanted!r} is none of the models.", hint=f"Say one of: {', '.join(models)}.")
        return models[wanted]
    opened = [base, *founders]
    place, differ = shared_frame([frame_of(model) for model in opened])
    if differ:
        lines = " or ".join(f"`frame: {id}`" for id in models)
        raise InvalidConfig(
            "The founders have different tokenizers, templates or end tokens, and offspring can have but one: "
            + "; ".join(differ)
            + ".",
            hint=f"Say in the run file whose they are: {lines}."
            + " `tokenizer_source: union` beside it keeps the tokens of all."
            * any(each.startswith(("vocabulary", "added tokens")) for each in differ),
        )
    return opened[place]


def shared_frame(frames: Sequence[Frame]) -> tuple[int, list[str]]:
    """Whose of ``frames``, the base's and then those of its fine-tunes, the fine-tunes share; and in what they differ.

    Where the base has it too, it is the one that everything was made of; without fine-tunes it is the base's own.
    """
    base, *others = frames
    return int(bool(others and differences([base, others[0]]))), differences(others)


def renumbered(differ: Sequence[str]) -> list[str]:
    """Those of some `differences` by which a number is another token in one model than in another."""
    return [difference for difference in differ if difference.startswith(_NUMBERING)]


def _tokenizer(folder: Path) -> dict[str, Any]:
    facts: dict[str, Any] = {}
    file = find_file(folder, "tokenizer.json")
    if file is not None:
        content = read_json(file, MAX_TOKENIZER_BYTES)
        model = content.get("model")
        inner = dict(model) if isinstance(model, Mapping) else {}
        facts["vocabulary"] = inner.pop("vocab", None)
        facts["added tokens"] = content.get("added_tokens")
        facts["tokenizer model"] = inner
        parts = ("normalizer", "pre_tokenizer", "post_processor", "decoder")
        facts |= {part: content[part] for part in parts if content.get(part)}
    else:
        for name in ("vocab.json", "vocab.txt", "merges.txt", "added_tokens.json"):
            text = read_text(folder, name)
            facts |= {name: text} if text is not None else {}
        for name in ("tokenizer.model", "spiece.model"):
            file = find_file(folder, name)
            facts |= {name: file.read_bytes()} if file is not None else {}
    file = find_file(folder, "tokenizer_config.json")
    return facts | (_labelled("tokenizer", read_json(file)) if file is not None else {})


def _labelled(label: str, content: Mapping[str, Any]) -> dict[str, Any]:
    return {f"{label}: {key}": value for key, value in content.items() if key not in _PROVENANCE and value is not None}


def _short(value: Any) -> str:
    """A value in a few words: of large ones their size."""
    if value is None:
        return "none"
    if isinstance(value, Mapping | list) and len(json.dumps(value, default=str)) > 60:
        return f"{len(value)} entries"
    if isinstance(value, bytes):
        return f"{len(value)} bytes"
    return brief(value)
