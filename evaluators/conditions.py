"""What results are made with: told to people, and hashed into the digests of tasks.

docs/scores.md lists all that decides a score; tests/faults/test_conditions.py changes each entry alone.
"""

import hashlib
from collections.abc import Mapping, Set
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from evaluators.settings import EvaluateSettings
from kinship.checkpoints.checkpoint import Checkpoint
from kinship.checkpoints.folder_files import find_file, read_json

if TYPE_CHECKING:
    from evaluators.live import LiveModel

PROVENANCE = frozenset({"_name_or_path", "name_or_path", "_commit_hash", "transformers_version"})
DTYPES = frozenset({"dtype", "torch_dtype"})
"""Keys for the dtype of the stored weights; a live model has the dtype it was asked for."""
TOKENIZER_PROVENANCE = PROVENANCE | {"tokenizer_file", "special_tokens_map_file", "is_local", "local_files_only"}
BEHAVIOUR = (
    "padding_side", "truncation_side", "model_max_length", "clean_up_tokenization_spaces", "add_bos_token",
    "add_eos_token", "split_special_tokens", "model_input_names", "all_special_tokens", "extra_special_tokens",
)  # fmt: skip
"""What a tokenizer does beside cutting texts, whether its files say so or transformers does."""


def conditions(live: "LiveModel", settings: EvaluateSettings) -> dict[str, str]:
    """What results on a live model are made with, for people."""
    return {
        **_versions(),
        "device": live.device,
        "dtype": str(live.dtype).removeprefix("torch."),
        "batch_size": str(settings.batch_size),
        "seed": str(settings.seed),
        **({"share_prefixes": "yes"} if settings.share_prefixes else {}),
    }


def decisive(live: "LiveModel", template: Checkpoint, settings: EvaluateSettings) -> dict[str, Any]:
    """What decides results on a live model beside weights and task: plain data, for digests.

    Not in it: what config files say of where the model came from, and of the dtype it is stored in.
    """
    return {
        "versions": _versions(),
        "config": without(template.config, PROVENANCE | DTYPES),
        "generation": without(live.model.generation_config.to_dict(), PROVENANCE),
        "tokenizer": _tokenizer(live.tokenizer, template),
        "device": live.device,
        "dtype": str(live.dtype),
        "batch_size": settings.batch_size,
        **({"share_prefixes": True} if settings.share_prefixes else {}),
    }


def without(config: Mapping[str, Any], keys: Set[str]) -> dict[str, Any]:
    """``config`` without ``keys``, at any depth: multimodal models have configs within configs.

    >>> without({"hidden_size": 8, "dtype": "float16", "text_config": {"dtype": "float16"}}, DTYPES)
    {'hidden_size': 8, 'text_config': {}}
    """
    return {
        key: without(value, keys) if isinstance(value, Mapping) else value
        for key, value in config.items()
        if key not in keys
    }


def _tokenizer(tokenizer: Any, template: Checkpoint) -> dict[str, Any]:
    """Everything that a tokenizer may do: how it cuts texts, the roles of its tokens, how it pads, ends and chats.

    Any evaluator may ask it for any of that. One written in Python has no single file that says how it cuts.
    """
    settings = find_file(template.path, "tokenizer_config.json")
    facts = {
        "class": type(tokenizer).__qualname__,
        "special": {name: _plain(token) for name, token in tokenizer.special_tokens_map.items()},
        "chat_template": tokenizer.chat_template,
        "behaviour": {name: _plain(getattr(tokenizer, name, None)) for name in BEHAVIOUR},
        "settings": without(read_json(settings), TOKENIZER_PROVENANCE) if settings else {},
    }
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is not None:
        return facts | {"cuts": backend.to_str()}
    names = {*tokenizer.vocab_files_names.values(), "added_tokens.json", "special_tokens_map.json"}
    files = {name: find_file(template.path, name) for name in sorted(names)}
    digests = {name: hashlib.sha256(file.read_bytes()).hexdigest() for name, file in files.items() if file}
    return facts | {"vocabulary": tokenizer.get_vocab(), "files": digests}


def _plain(value: Any) -> Any:
    """Tokens as what they say and how they are found."""
    if isinstance(value, list | tuple):
        return [_plain(part) for part in value]
    return value if value is None or isinstance(value, bool | int | float | str) else repr(value)


def _versions() -> dict[str, str]:
    return {package: version(package) for package in ("torch", "transformers", "tokenizers")}
