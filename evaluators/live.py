"""A language model in memory whose weights are swapped in place."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from evaluators.base import Candidate, gives_nan
from evaluators.model_kinds import Kind, kind_of, looks_ahead, minds_padding, sees_ahead
from kinship.checkpoints.architecture import Architecture
from kinship.checkpoints.checkpoint import Checkpoint
from kinship.checkpoints.sizes import require_held
from kinship.checkpoints.tied import tie_as_told
from kinship.errors import InvalidConfig, MismatchedModels, UnsupportedCheckpoint
from merging.offspring.weights import Tensors, TensorStream, held_stream

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
        config = tie_as_told(config_of(template), template)
        self.kind: Kind = kind_of(template, config)
        auto = AutoModelForSeq2SeqLM if self.kind == "seq2seq" else AutoModelForCausalLM
        with _made_by_transformers(template, "model"):
            model = auto.from_config(config, dtype=self.dtype, trust_remote_code=False)
        self.model: Any = model.to(device).eval().requires_grad_(False)
        if (folder / "generation_config.json").exists():
            self.model.generation_config = GenerationConfig.from_pretrained(
                folder, local_files_only=True, trust_remote_code=False
            )
        with _made_by_transformers(template, "tokenizer"):
            self.tokenizer: Any = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
            if not self.tokenizer.get_vocab().keys() - set(self.tokenizer.all_special_tokens):
                raise ValueError("there are no files of a tokenizer")  # of nothing transformers makes an empty one
        if device == "cpu" and self.model.num_parameters() < ONE_THREAD_BELOW:
            torch.set_num_threads(1)
        self.architecture = Architecture(self.model)
        self._places: dict[str, torch.Tensor] = self.model.state_dict()  # its tensors are the model's own
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
        """Overwrite every parameter, as `from_pretrained` would from a file of these tensors.

        Raises `MismatchedModels` naming a tensor that has no place or another shape, and parameters without a value.
        """
        self._held = None
        stream = tensors if isinstance(tensors, TensorStream) else held_stream(tensors)
        names = [spec.name for spec in stream.specs]
        self._require_places(names)
        for module in self.model.modules():
            if getattr(module, "layers_are_rescaled", False):  # RWKV halves weights in place, once
                module.layers_are_rescaled = False
        places = self.architecture.places(names)
        if stream.fill is not None and self.device == "cpu" and all(place.pattern is None for place in places.values()):
            ignored = {spec.name: torch.empty(spec.shape) for spec in stream.specs if spec.name not in places}
            stream.fill(ignored | {name: self._places[place.parameter] for name, place in places.items()})
        else:
            for name, tensor in self.architecture.converted(stream, names):
                self._put(name, tensor)

    def _require_places(self, names: Sequence[str]) -> None:
        """Raise `MismatchedModels` unless files with the tensors ``names`` give every parameter, and nothing else."""
        for name in names:
            if self.architecture.place(name) is None and not self.architecture.ignores(name):
                raise MismatchedModels(
                    f"The model has no parameter {name!r}.",
                    hint="Is the base of another kind? With evaluate.written models are scored from folders.",
                )
        missing = self.architecture.missing(names)
        if missing:
            raise MismatchedModels(f"The checkpoints hold no tensor {missing[0]!r} that the model needs.")

    def _put(self, name: str, tensor: torch.Tensor) -> None:
        place = self._places[name]
        if place.shape != tensor.shape:
            raise MismatchedModels(
                f"Tensor {name!r} has shape {list(tensor.shape)}, but config.json makes it {list(place.shape)}."
            )
        place.copy_(tensor)

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

    require_held(template)
    with _made_by_transformers(template, "config"):
        return AutoConfig.from_pretrained(
            require_model_folder(template), local_files_only=True, trust_remote_code=False
        )


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
