"""A language model in memory whose weights are swapped in place."""

import hashlib
from collections.abc import Iterator, Mapping, Set
from contextlib import contextmanager
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from evaluators.base import Candidate, gives_nan
from evaluators.model_kinds import Kind, kind_of, looks_ahead, minds_padding, sees_ahead
from evaluators.settings import EvaluateSettings
from kinship.checkpoints.checkpoint import Checkpoint
from kinship.checkpoints.folder_files import find_file, read_json
from kinship.errors import InvalidConfig, MismatchedModels, UnsupportedCheckpoint
from merging.offspring.weights import Tensors, TensorStream

PROVENANCE = frozenset({"_name_or_path", "name_or_path", "_commit_hash", "transformers_version"})
DTYPES = frozenset({"dtype", "torch_dtype"})
"""Keys for the dtype of the stored weights; a live model has the dtype it was asked for."""


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


ONE_THREAD_BELOW = 5_000_000


class LiveModel:
    """Architecture and tokenizer of ``template``; weights come with `hold` or `load`.

    dtype: ``auto`` is float32 on the CPU and bfloat16 elsewhere. Devices other than the CPU are untested.
    On the CPU, models below `ONE_THREAD_BELOW` parameters run on one thread: more would wait for each other.
    ``kind``: whether it is causal or sequence-to-sequence.
    Memory: one model in ``dtype``. No remote code is run. Raises `InvalidConfig` for a device that is not here and
    `UnsupportedCheckpoint` for a model that makes no text or that transformers cannot make of its folder.
    """

    def __init__(self, template: Checkpoint, device: str = "cpu", dtype: str | torch.dtype = "auto") -> None:
        from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM, AutoTokenizer, GenerationConfig

        folder = require_model_folder(template)
        _require_device(device)
        self.device = device
        self.dtype = dtype_on(device, dtype)
        config = config_of(template)
        self.kind: Kind = kind_of(template, config)
        auto = AutoModelForSeq2SeqLM if self.kind == "seq2seq" else AutoModelForCausalLM
        with _made_by_transformers(template, "model"):
            model = auto.from_config(config, dtype=self.dtype)
        self.model: Any = model.to(device).eval().requires_grad_(False)
        if (folder / "generation_config.json").exists():
            self.model.generation_config = GenerationConfig.from_pretrained(folder, local_files_only=True)
        with _made_by_transformers(template, "tokenizer"):
            self.tokenizer: Any = AutoTokenizer.from_pretrained(folder, local_files_only=True)
            if not self.tokenizer.get_vocab().keys() - set(self.tokenizer.all_special_tokens):
                raise ValueError("there are no files of a tokenizer")  # of nothing transformers makes an empty one
        if device == "cpu" and self.model.num_parameters() < ONE_THREAD_BELOW:
            torch.set_num_threads(1)
        self._needed = dict(self.model.named_parameters(remove_duplicate=False))
        self._places: dict[str, torch.Tensor] = self.model.state_dict() | self._needed
        self._id, self._tried = template.id, False
        self._held: tuple[str, int] | None = None

    def hold(self, candidate: Candidate) -> None:
        """Load the weights of ``candidate``, unless they are loaded already and nobody has changed them.

        Raises `EvaluationFailed` where the model gives NaN after one token, and once `UnsupportedCheckpoint` where it
        turns out to see what comes after a token.
        """
        if self._held == (candidate.identity, self._changes()):
            return
        self.load(candidate.tensors())
        if self.gives_nan():
            raise gives_nan(candidate.id, "already after one token")
        if not self._tried and self.kind == "causal" and looks_ahead(self.model):
            raise sees_ahead(self._id, type(self.model).__name__)
        self._tried = True
        self._held = (candidate.identity, self._changes())

    @cached_property
    def goes_alone(self) -> bool:
        """Whether the model generates rightly from one prompt at a time alone; tried with the weights at hand."""
        return self.kind == "causal" and minds_padding(self.model)

    def _changes(self) -> int:
        """Grows with every change of a parameter by torch."""
        return sum(place._version for place in self._places.values())

    def load(self, tensors: Tensors) -> None:
        """Overwrite every parameter; raises `MismatchedModels` naming a tensor that has no place or is missing."""
        self._held = None
        for module in self.model.modules():
            if getattr(module, "layers_are_rescaled", False):  # RWKV halves weights in place, once
                module.layers_are_rescaled = False
        if isinstance(tensors, TensorStream) and tensors.fill is not None and self.device == "cpu":
            tensors.fill(self._places)
            filled = {id(self._places[spec.name]) for spec in tensors.specs}
        else:
            filled = {id(self._put(name, tensor)) for name, tensor in tensors}
        for name, place in self._needed.items():
            if id(place) not in filled:
                raise MismatchedModels(f"The checkpoints hold no tensor {name!r} that the model needs.")

    def _put(self, name: str, tensor: torch.Tensor) -> torch.Tensor:
        place = self._places.get(name)
        if place is None:
            raise MismatchedModels(f"The model has no parameter {name!r}.", hint="Is the base of another kind?")
        if place.shape != tensor.shape:
            raise MismatchedModels(
                f"Tensor {name!r} has shape {list(tensor.shape)}, but config.json makes it {list(place.shape)}."
            )
        return place.copy_(tensor)

    def gives_nan(self) -> bool:
        """Whether the logits after one token hold NaN: a generation would hide it, a likelihood shows it."""
        token = torch.zeros(1, 1, dtype=torch.long, device=self.device)
        answer = {"decoder_input_ids": token} if self.kind == "seq2seq" else {}
        with torch.inference_mode():
            return bool(self.model(input_ids=token, **answer).logits.isnan().any())


def require_model_folder(template: Checkpoint) -> Path:
    """The folder of a checkpoint that can be run; raises `UnsupportedCheckpoint` for a bare weights file."""
    if not template.config:
        raise UnsupportedCheckpoint(
            f"{template.id} has no config.json, so it cannot be run and scored.",
            hint="Give a Hugging Face model folder with config and tokenizer.",
        )
    return template.path


def config_of(template: Checkpoint) -> Any:
    """The transformers config of a model folder; raises `UnsupportedCheckpoint` where transformers makes none of it."""
    from transformers import AutoConfig

    with _made_by_transformers(template, "config"):
        return AutoConfig.from_pretrained(require_model_folder(template), local_files_only=True)


@contextmanager
def _made_by_transformers(template: Checkpoint, what: str) -> Iterator[None]:
    """Say in one line what transformers says in pages, and name the model."""
    try:
        yield
    except Exception as error:  # whatever transformers, its tokenizers and their libraries raise
        said = str(error).strip().splitlines() or [""]
        code = "auto_map" in template.config
        raise UnsupportedCheckpoint(
            f"transformers {version('transformers')} makes no {what} of {template.path}: {type(error).__name__}: "
            f"{said[0]}",
            hint="It needs code of its own, which is not run." if code else "It cannot be scored as it is.",
        ) from error


def conditions(live: LiveModel, settings: EvaluateSettings) -> dict[str, str]:
    """What results on a live model are made with, for people."""
    return {
        **_versions(),
        "device": live.device,
        "dtype": str(live.dtype).removeprefix("torch."),
        "batch_size": str(settings.batch_size),
        "seed": str(settings.seed),
    }


def decisive(live: LiveModel, template: Checkpoint, settings: EvaluateSettings) -> dict[str, Any]:
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
    }


def _tokenizer(tokenizer: Any, template: Checkpoint) -> Any:
    """What decides how a tokenizer cuts texts: one written in Python has no single file that says it."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is not None:
        return backend.to_str()
    names = {*tokenizer.vocab_files_names.values(), "added_tokens.json", "special_tokens_map.json"}
    files = {name: find_file(template.path, name) for name in sorted(names)}
    settings = find_file(template.path, "tokenizer_config.json")
    return {
        "class": type(tokenizer).__qualname__,
        "vocabulary": tokenizer.get_vocab(),
        "special": {name: str(token) for name, token in tokenizer.special_tokens_map.items()},
        "files": {name: hashlib.sha256(file.read_bytes()).hexdigest() for name, file in files.items() if file},
        "settings": without(read_json(settings), PROVENANCE) if settings else {},
    }


def _versions() -> dict[str, str]:
    return {package: version(package) for package in ("torch", "transformers")}


def dtype_on(device: str, dtype: str | torch.dtype = "auto") -> torch.dtype:
    """The dtype that weights have in memory.

    >>> dtype_on("cpu"), dtype_on("cuda:1"), dtype_on("cpu", "float16")
    (torch.float32, torch.bfloat16, torch.float16)
    """
    if isinstance(dtype, torch.dtype):
        return dtype
    named = ("float32" if device == "cpu" else "bfloat16") if dtype == "auto" else dtype
    found: torch.dtype = getattr(torch, named)
    return found


def _require_device(device: str) -> None:
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:  # torch without CUDA asserts
        raise InvalidConfig(
            f"There is no device {device!r} here: {str(error).splitlines()[0]}",
            hint="Say cpu, or cuda where there is one.",
        ) from None
