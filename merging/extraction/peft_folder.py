"""A LoRA adapter in peft's format, written module by module: shapes are known only as they come."""

import json
from collections import Counter
from collections.abc import Collection, Sequence
from pathlib import Path
from tempfile import TemporaryFile
from types import TracebackType
from typing import IO, Any, Self

import numpy as np
import torch
import yaml
from numpy.typing import NDArray

from kinship.checkpoints.adapter_config import CONFIG_NAME
from kinship.checkpoints.dtypes import FLOAT32
from kinship.checkpoints.folder_files import read_text
from kinship.checkpoints.header import TensorEntry
from kinship.checkpoints.lora import WEIGHTS_NAME
from kinship.checkpoints.references import Reference
from kinship.output import anything
from kinship.outside import in_code, in_markdown
from merging.extraction.layout import Layout, Target, Whole
from merging.output.folder import SUMS_NAME
from merging.output.writer import SafetensorsFile, sha256
from merging.planning.graph import Spec

Pair = tuple[torch.Tensor, torch.Tensor]

_CARD_NAME = "README.md"
_PREFIX = "base_model.model."
_AT_ONCE = 1 << 24


class AdapterWriter:
    """Writes an adapter of ``base`` into ``folder``; a context manager. Memory: what it is given at once.

    tied: head and embedding, where the one is the other; it is so too of an embedding that is kept whole.
    """

    def __init__(self, folder: Path, base: Reference, layout: Layout, tied: tuple[str, str] | None) -> None:
        self._folder, self._base, self._layout, self._tied = folder, base, layout, tied
        self._specs: list[Spec] = []
        self._ranks: dict[str, int] = {}
        self._linear: list[str] = []
        self._parameters: list[str] = []
        self._saved: list[str] = []
        self._biases = self._follows = False

    def __enter__(self) -> Self:
        # The file begins with where each tensor lies, so that is known last; it comes from here.
        self._scratch: IO[bytes] = TemporaryFile(dir=self._folder.parent)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._scratch.close()

    @property
    def parameters(self) -> int:
        """Numbers written so far."""
        return sum(spec.size for spec in self._specs)

    def add_factors(self, target: Target, pairs: Sequence[Pair]) -> int:
        """Factors B (out, r) and A (r, in) of a module, or of all its experts; returns the largest of their ranks."""
        rank = max(1, *(left.shape[1] for left, _ in pairs))
        left = torch.stack([_padded(left, rank, 1) for left, _ in pairs])
        right = torch.stack([_padded(right, rank, 0) for _, right in pairs])
        # Of experts, peft has A (experts r, in), expert by expert, and B (out, r experts), direction by direction.
        self._add(f"{target.key}.lora_A.weight", right.reshape(-1, right.shape[-1]))
        self._add(f"{target.key}.lora_B.weight", left.permute(1, 2, 0).reshape(left.shape[1], -1))
        if target.parameter is None:
            self._linear.append(target.module)
        else:
            self._parameters.append(target.parameter)
        if target.parameter is None or not target.stacked:
            self._ranks[target.module] = rank
        if target.parameter is not None:
            self._ranks[target.parameter] = rank
        return rank

    def add_whole(self, whole: Whole, stored: NDArray[np.uint8], entry: TensorEntry) -> None:
        """The bytes of a tensor that is kept whole, as ``entry`` tells of them."""
        name = whole.parameter
        if whole.kind == "biases":
            self._biases = True
            name = f"{whole.module}.base_layer.bias" if whole.module in self._linear else name
        elif whole.module not in self._saved:
            self._saved.append(whole.module)
        names = [name]
        if self._tied is not None and whole.tensor == self._tied[1]:
            names.append(self._tied[0])  # peft wants it once more
            self._follows = True
        for each in names:
            self._specs.append(Spec(f"{_PREFIX}{each}", entry.dtype, entry.shape))
            self._scratch.write(stored.data)

    def finish(self, name: str, about: str) -> None:
        """Complete the folder: weights, config, a card called ``name`` that says ``about``, checksums."""
        file = SafetensorsFile(self._folder / WEIGHTS_NAME, self._specs)
        self._scratch.seek(0)
        for spec in self._specs:
            for start in range(0, spec.nbytes, _AT_ONCE):
                data = self._scratch.read(min(_AT_ONCE, spec.nbytes - start))
                file.write(spec.name, start, np.frombuffer(data, dtype=np.uint8))
        file.finish()
        (self._folder / CONFIG_NAME).write_text(json.dumps(self._config(), indent=2) + "\n", encoding="utf-8")
        (self._folder / _CARD_NAME).write_text(self._card(name, about), encoding="utf-8")
        lines = [f"{sha256(each)}  {each.name}\n" for each in sorted(self._folder.iterdir())]
        (self._folder / SUMS_NAME).write_text("".join(lines), encoding="utf-8")

    def _add(self, name: str, factor: torch.Tensor) -> None:
        array = np.ascontiguousarray(factor.numpy())
        self._specs.append(Spec(f"{_PREFIX}{name}", FLOAT32, array.shape))
        self._scratch.write(array.data)

    def _config(self) -> dict[str, Any]:
        """What peft makes the adapter of; alpha is the rank everywhere, so that products are not scaled."""
        rank = Counter(self._ranks.values()).most_common(1)[0][0]
        others = {module: own for module, own in self._ranks.items() if own != rank}
        found: dict[str, Any] = {
            "peft_type": "LORA",
            "task_type": self._layout.task,
            "base_model_name_or_path": self._base.path,
            "revision": self._base.revision,
            "r": rank,
            "lora_alpha": rank,
            "rank_pattern": others,
            "alpha_pattern": others,
            "target_modules": _shortest(self._linear, self._layout.modules) or None,
            "target_parameters": self._parameters or None,
            "modules_to_save": self._saved or None,
            "fan_in_fan_out": any(target.turned and not target.stacked for target in self._layout.targets),
            "bias": "all" if self._biases else "none",
            "lora_dropout": 0.0,
            "use_rslora": False,
            "use_dora": False,
            "init_lora_weights": True,
            "inference_mode": True,
        }
        return found | ({"ensure_weight_tying": True} if self._follows else {})

    def _card(self, name: str, about: str) -> str:
        front = {
            "base_model": [self._base.path],
            "base_model_relation": "adapter",
            "library_name": "peft",
            "tags": ["lora", "model-kinship"],
        }
        text = f"A LoRA adapter of {in_code(str(self._base))}, made with model-kinship: {in_markdown(about)}"
        return f"---\n{yaml.safe_dump(front, sort_keys=False)}---\n\n# {in_markdown(name)}\n\n{text}\n"


def foreign_in_adapter(folder: Path) -> str | None:
    """What in ``folder`` no extraction has put there, by its checksums' list; None where there is nothing else.

    The `Foreign` of adapters, see `kinship.output`.
    """
    ours = {line.split("  ", 1)[-1] for line in (read_text(folder, SUMS_NAME) or "").splitlines()}
    if not {WEIGHTS_NAME, CONFIG_NAME} <= ours:
        return anything(folder)
    entries = sorted(folder.iterdir())
    return next((each.name for each in entries if each.name not in {*ours, SUMS_NAME} or each.is_dir()), None)


def _padded(factor: torch.Tensor, rank: int, dimension: int) -> torch.Tensor:
    """A factor with zeros up to ``rank`` directions."""
    missing = list(factor.shape)
    missing[dimension] = rank - missing[dimension]
    return torch.cat([factor, factor.new_zeros(missing)], dim=dimension)


def _shortest(chosen: Sequence[str], every: Collection[str]) -> list[str]:
    """Names for peft, which compares their ends, that stand for the modules ``chosen`` and for no other of ``every``.

    >>> _shortest(["0.q", "1.q", "1.k"], ["0.q", "0.k", "1.q", "1.k", "0", "1"])
    ['1.k', 'q']
    """
    own, others = set(chosen), {name.rpartition(".")[2] for name in set(every) - set(chosen)}
    return sorted({name if name.rpartition(".")[2] in others else name.rpartition(".")[2] for name in own})
