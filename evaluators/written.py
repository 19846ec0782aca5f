"""lm-eval on written model folders, by any of its backends, each evaluation in a process of its own."""

import json
import sys
from contextlib import ExitStack
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from evaluators.base import Candidate, Documents, failing, gives_nan
from evaluators.live import config_of, require_model_folder
from evaluators.lm_eval.suite import Suite
from evaluators.model_kinds import HF_BACKENDS, require_hf_backend
from evaluators.processes import finish, running, wait_for
from evaluators.settings import EvaluateSettings, WrittenSettings
from kinship.checkpoints.checkpoint import Checkpoint
from kinship.checkpoints.dtypes import BY_NAME
from kinship.checkpoints.folder_files import companions, copy_regular
from kinship.checkpoints.opening import INDEX_NAME
from kinship.errors import EvaluationFailed, InputsChanged, InvalidConfig
from kinship.validation import nearest
from merging.offspring.weights import Tensors, TensorStream, cast
from merging.output.writer import ShardWriter, sha256
from merging.planning.config import with_dtype
from merging.planning.graph import Spec

_COMPANIONS = ("*.json", "*.model", "*.txt", "*.jinja", "*.py", "*.tiktoken", "*.bpe")
_IN_FOLDER = {"hf": "pretrained", "vllm": "pretrained", "sglang": "pretrained"}


class WrittenHarness:
    """An `Evaluator` that writes each candidate as a model folder and has a backend of lm-eval score it.

    ``hf`` is tested; vllm, sglang, gguf and the APIs are not. A backend that reads no folders (gguf, the APIs) needs
    ``serve``, a command that serves the folder at ``url`` meanwhile. Prompts, few-shot examples, metrics and filters
    are those of `Harness`. Cost: writing the weights and starting a program, for each call.
    Killed by force, a process leaves its folder in ``scratch`` behind. Raises as `Suite`, `InvalidConfig` for an
    unknown backend, and with ``hf`` `UnsupportedCheckpoint` for a model that makes no text.
    """

    def __init__(self, settings: EvaluateSettings, template: Checkpoint, root: Path | None = None) -> None:
        if settings.written is None:
            raise ValueError("settings.written says by which backend")
        self._written: WrittenSettings = settings.written
        self._settings = settings
        self._template = template
        self._root = (root or Path()).absolute()
        folder = require_model_folder(template)
        _require_backend(self._written.backend)
        if self._written.backend in HF_BACKENDS and not self._written.model_args.get("trust_remote_code"):
            require_hf_backend(template, config_of(template))
        self.conditions = _conditions(settings, self._written)
        self._companions = {file.name: sha256(file) for file in _companions(folder)}
        self._decisive: dict[str, Any] = {
            "written": self._written.model_dump(mode="json", exclude={"scratch", "seconds"}),
            "batch_size": settings.batch_size,
            "device": settings.device,
            "files": self._companions,
            "versions": {name: self.conditions[name] for name in self.conditions if name in _packages(self._written)},
        }
        self._suite = Suite(settings, self._root, self._decisive)
        self.tasks = self._suite.tasks

    def run(self, candidate: Candidate, documents: Documents) -> dict[str, dict[int, float]]:
        """See `Evaluator.run`."""
        with (
            failing(candidate.id, f"lm-eval's backend {self._written.backend}"),
            TemporaryDirectory(prefix="kinship-", dir=self._written.scratch) as place,
        ):
            folder = Path(place, "model")
            write_candidate(folder, candidate, self._template, self._written.dtype)
            self._require_companions(folder)
            found = self._ask(Path(place), folder, candidate.id, documents)
        if "failed" in found:
            kind = InputsChanged if found["failed"]["code"] == InputsChanged.code else EvaluationFailed
            raise kind(found["failed"]["message"], hint=found["failed"]["hint"])
        return {
            name: {int(document): value for document, value in results.items()}
            for name, results in found["results"].items()
        }

    def _require_companions(self, folder: Path) -> None:
        """Raise `InputsChanged` unless what was copied into ``folder`` is what the digests are about."""
        for name, digest in self._companions.items():
            written_anew = name == "config.json" and self._written.dtype != "stored"
            if not written_anew and (not (folder / name).is_file() or sha256(folder / name) != digest):
                raise InputsChanged(
                    f"{self._template.path / name} changed since scoring began.",
                    hint="Put it back as it was, or start again.",
                )

    def _ask(self, place: Path, folder: Path, candidate: str, documents: Documents) -> dict[str, Any]:
        backend = self._written.backend
        arguments: dict[str, Any] = {_IN_FOLDER[backend]: "{folder}"} if backend in _IN_FOLDER else {}
        if backend in HF_BACKENDS:  # code of the model runs where model_args say so
            arguments |= {"trust_remote_code": False}
        request = {
            "settings": self._settings.model_dump(mode="json"),
            "root": str(self._root),
            "backend": backend,
            "model_args": _filled(arguments | self._written.model_args, folder),
            "candidate": candidate,
            "documents": {name: list(ids) for name, ids in documents.items()},
            "decisive": self._decisive,
            "digests": {task.name: task.digest for task in self.tasks},
            "path": sys.path,
            "answer": str(place / "answer.json"),
        }
        (place / "request.json").write_text(json.dumps(request), encoding="utf-8")
        command = [sys.executable, "-m", "evaluators.lm_eval.backend", str(place / "request.json")]
        with ExitStack() as stack:
            if self._written.serve:
                log = place / "server.log"
                server = stack.enter_context(running(_filled(self._written.serve, folder), log))
                wait_for(self._written.url or "", server, log, self._written.seconds)
            log = place / "backend.log"
            process = stack.enter_context(running(command, log))
            finish(process, f"lm-eval's backend {backend}, asked about {candidate},", log, self._written.seconds)
        found: dict[str, Any] = json.loads((place / "answer.json").read_text(encoding="utf-8"))
        return found


def write_candidate(folder: Path, candidate: Candidate, template: Checkpoint, dtype: str) -> None:
    """A model folder of ``candidate`` with config and tokenizer of ``template``; ``dtype``: ``stored`` as in that.

    Memory: one tensor. Raises `EvaluationFailed` for NaN or infinity among the weights, which a generation would hide,
    and `NonFiniteWeights` for weights too large for the dtype.
    """
    folder.mkdir()
    stored = template.tensors
    for file in _companions(template.path):
        copy_regular(file, folder / file.name)
    if dtype != "stored":
        (folder / "config.json").write_text(json.dumps(with_dtype(template.config, dtype)), encoding="utf-8")
    specs = [Spec(name, entry.dtype, entry.shape) for name, entry in stored.items()]
    written = cast(
        TensorStream(specs, _finite(candidate)),
        lambda name: (stored[name].dtype if dtype == "stored" else BY_NAME[dtype]).torch,
    )
    with ShardWriter(folder, written.specs) as writer:
        for name, start, data in written.pieces():
            writer.write(name, start, data)


def _finite(candidate: Candidate) -> Tensors:
    for name, tensor in candidate.tensors():
        if tensor.is_floating_point() and not tensor.isfinite().all():
            raise gives_nan(candidate.id, f"or infinity in the tensor {name!r}")
        yield name, tensor


def _companions(folder: Path) -> list[Path]:
    files, _ = companions(folder, _COMPANIONS)
    return [file for file in files if not file.name.endswith(INDEX_NAME)]


def _filled(value: Any, folder: Path) -> Any:
    """``value`` with the folder's path wherever a text says {folder}."""
    match value:
        case str():
            return value.replace("{folder}", str(folder))
        case list():
            return [_filled(part, folder) for part in value]
        case dict():
            return {key: _filled(part, folder) for key, part in value.items()}
    return value


def _require_backend(name: str) -> None:
    import lm_eval.models  # noqa: F401 - registers the backends
    from lm_eval.api.registry import model_registry

    if name not in model_registry:
        raise InvalidConfig(f"lm-eval has no backend {name!r}.", hint=nearest(name, sorted(model_registry.keys())))


def _packages(written: WrittenSettings) -> list[str]:
    return ["lm_eval", "torch", "transformers", written.backend]


def _conditions(settings: EvaluateSettings, written: WrittenSettings) -> dict[str, str]:
    found = {}
    for package in _packages(written):
        try:
            found[package] = version(package)
        except PackageNotFoundError:  # the backend's name is no package's, or it is not installed here
            continue
    return {
        **found,
        "backend": written.backend,
        "device": settings.device,
        "dtype": written.dtype,
        "batch_size": str(settings.batch_size),
        "seed": str(settings.seed),
    }
