"""A language model in memory whose weights are swapped in place."""

from collections.abc import Sequence
from contextlib import AbstractContextManager
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from evaluators.base import Candidate, gives_nan
from evaluators.model_kinds import SEEING, Kind, kind_of, loader_of, looks_ahead, minds_padding, sees_ahead, sees_images
from kinship.checkpoints.architecture import Architecture
from kinship.checkpoints.checkpoint import Checkpoint
from kinship.checkpoints.sizes import require_held
from kinship.checkpoints.tied import tie_as_told
from kinship.errors import InvalidConfig, MismatchedModels, UnsupportedCheckpoint, foreign
from merging.offspring.weights import Tensors, TensorStream, held_stream

ONE_THREAD_BELOW = 5_000_000

_WRITTEN = "Score models from folders, as lm-eval loads them: `written: {backend: hf}` in evaluate."


class LiveModel:
    """Architecture and tokenizer of ``template``; weights come with `hold` or `load`.

    dtype: ``auto`` is float32 on the CPU and bfloat16 elsewhere. Devices other than the CPU are untested.
    On the CPU, models below `ONE_THREAD_BELOW` parameters run on one thread: more would wait for each other.
    ``kind``: whether it is causal or sequence-to-sequence. Vision-language models are asked for text alone,
    given ``text_only``.
    Memory: one model in ``dtype``. No remote code is run. Raises `InvalidConfig` for a device that is not here,
    `UnsupportedCheckpoint` for a model that makes no text, that transformers cannot make of its folder or whose files
    cannot be turned into parameters here, and `MismatchedModels` as `load` does: before any weight is read.
    """

    def __init__(
        self, template: Checkpoint, device: str = "cpu", dtype: str | torch.dtype = "auto", text_only: bool = False
    ) -> None:
        import transformers

        folder = require_model_folder(template)
        _require_device(device)
        self.device = device
        self.dtype = dtype_on(device, dtype)
        config = tie_as_told(config_of(template), template)
        self.kind: Kind = kind_of(template, config)
        loader = loader_of(config)
        if loader == SEEING and not text_only:
            raise sees_images(template.id, config.architectures[0])
        with _made_by_transformers(template, "model"):
            model = getattr(transformers, loader).from_config(config, dtype=self.dtype, trust_remote_code=False)
            self.model: Any = model.to(device).eval().requires_grad_(False)
        if loader == SEEING:
            self._require_text_alone(template)
        if (folder / "generation_config.json").exists():
            with _made_by_transformers(template, "generation config"):
                self.model.generation_config = transformers.GenerationConfig.from_pretrained(
                    folder, local_files_only=True, trust_remote_code=False
                )
        with _made_by_transformers(template, "tokenizer"):
            self.tokenizer: Any = transformers.AutoTokenizer.from_pretrained(
                folder, local_files_only=True, trust_remote_code=False
            )
            if not self.tokenizer.get_vocab().keys() - set(self.tokenizer.all_special_tokens):
                raise ValueError("there are no files of a tokenizer")  # of nothing transformers makes an empty one
        if device == "cpu" and self.model.num_parameters() < ONE_THREAD_BELOW:
            torch.set_num_threads(1)
        self.architecture = Architecture(self.model)
        self._places: dict[str, torch.Tensor] = self.model.state_dict()  # its tensors are the model's own
        self._require_fit(template)
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

    def _require_fit(self, template: Checkpoint) -> None:
        """Raise what `load` would raise of weights in the form of ``template``: it is gone through without memory."""
        self._require_places(list(template.tensors))
        tensors = ((name, torch.empty(entry.shape, device="meta")) for name, entry in template.tensors.items())
        try:
            for name, tensor in self.architecture.converted(tensors, list(template.tensors)):
                self._require_shape(name, tensor)
        except MismatchedModels:
            raise
        except Exception as error:  # whatever transformers' conversions raise
            raise UnsupportedCheckpoint(
                f"{template.id}: its files cannot be turned into the parameters of {type(self.model).__name__} in "
                f"memory: {type(error).__name__}: {error}",
                hint=_WRITTEN,
            ) from error

    def _require_places(self, names: Sequence[str]) -> None:
        """Raise `MismatchedModels` unless files with the tensors ``names`` give every parameter, and nothing else."""
        for name in names:
            if self.architecture.place(name) is None and not self.architecture.ignores(name):
                raise MismatchedModels(
                    f"The model has no parameter {name!r}.",
                    hint=f"Is the base of another kind? {_WRITTEN}",
                )
        missing = self.architecture.missing(names)
        if missing:
            raise MismatchedModels(
                f"The checkpoints hold no tensor {missing[0]!r} that the model needs.",
                hint=f"Are they whole? {_WRITTEN}",
            )

    def _put(self, name: str, tensor: torch.Tensor) -> None:
        self._require_shape(name, tensor)
        self._places[name].copy_(tensor)

    def _require_shape(self, name: str, tensor: torch.Tensor) -> None:
        place = self._places[name]
        if place.shape != tensor.shape:
            raise MismatchedModels(
                f"Tensor {name!r} has shape {list(tensor.shape)}, but config.json makes it {list(place.shape)}."
            )

    def gives_nan(self) -> bool:
        """Whether the logits after one token hold NaN: a generation would hide it, a likelihood shows it."""
        return bool(self._logits_after_one().isnan().any())

    def _logits_after_one(self) -> torch.Tensor:
        token = torch.zeros(1, 1, dtype=torch.long, device=self.device)
        answer = {"decoder_input_ids": token} if self.kind == "seq2seq" else {}
        with torch.inference_mode():
            logits: torch.Tensor = self.model(input_ids=token, **answer).logits
        return logits

    def _require_text_alone(self, template: Checkpoint) -> None:
        """Raise `UnsupportedCheckpoint` for a vision-language model that has no answer without an image."""
        try:
            self._logits_after_one()
        except Exception as error:  # whatever its class raises that misses an image
            raise UnsupportedCheckpoint(
                f"{template.id} is a {type(self.model).__name__}, which goes on with no text that comes without an "
                f"image: {type(error).__name__}.",
                hint="It cannot be scored on texts; it can be compared and merged.",
            ) from error


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


def _made_by_transformers(template: Checkpoint, what: str) -> AbstractContextManager[None]:
    """Say in one line what transformers says in pages, and name the model."""
    code = "auto_map" in template.config
    return foreign(
        UnsupportedCheckpoint,
        f"transformers {version('transformers')} makes no {what} of {template.path}",
        hint="It needs code of its own, which is not run." if code else f"Mend its {what}: it cannot be scored so.",
    )


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
