"""How likely a model finds a text: a task for which any text file will do."""

import hashlib
import json
import math
import re
from collections.abc import Mapping, Sequence
from functools import partial
from importlib.metadata import version
from pathlib import Path
from statistics import fmean
from typing import Any

from evaluators.base import Candidate, Documents, Task, failing, gives_nan
from evaluators.conditions import conditions, decisive
from evaluators.live import LiveModel
from evaluators.lm_eval.model import as_lm_eval
from evaluators.lm_eval.prices import some
from evaluators.settings import EvaluateSettings, TextSettings
from kinship.checkpoints.checkpoint import Checkpoint
from kinship.errors import InvalidConfig, ReferenceNotFound


class Perplexity:
    """An `Evaluator` of the log-likelihood of text files, per byte or per token; more is better, 0 is certainty.

    A document is a line, or a chunk of the text. Each is scored for itself by lm-eval's ``loglikelihood_rolling``: its
    first token follows the token that begins texts; a document longer than the context is scored in windows.
    A document's perplexity per byte is exp(-value).
    Raises `ReferenceNotFound` or `InvalidConfig` for a file that is not there or no text.
    """

    def __init__(
        self, settings: EvaluateSettings, template: Checkpoint, root: Path | None = None, live: LiveModel | None = None
    ) -> None:
        self._live = live or LiveModel(template, settings.device, settings.dtype, settings.text_only)
        self._lm = as_lm_eval(self._live, settings)
        self._texts: dict[str, _Text] = {}
        self.tasks: list[Task] = []
        self.conditions = conditions(self._live, settings) | {"lm_eval": version("lm_eval")}
        shared = decisive(self._live, template, settings) | {"lm_eval": version("lm_eval")}
        for wanted in settings.perplexity:
            text = _Text(wanted, root or Path())
            self._texts[text.name] = text
            self.tasks.append(
                Task(
                    text.name,
                    f"log-likelihood per {wanted.per}",
                    text.digest(shared),
                    settings.split(text.name, text.documents, settings.limit),
                    price=partial(text.price, self._lm),
                )
            )

    def run(self, candidate: Candidate, documents: Documents) -> dict[str, dict[int, float]]:
        """See `Evaluator.run`."""
        with failing(candidate.id, "the perplexity"):
            self._live.hold(candidate)
            return {name: self._run(candidate.id, self._texts[name], ids) for name, ids in documents.items() if ids}

    def _run(self, candidate: str, text: "_Text", documents: Sequence[int]) -> dict[int, float]:
        from lm_eval.api.instance import Instance

        requests = [
            Instance("loglikelihood_rolling", doc={}, arguments=(text.documents[index],), idx=0) for index in documents
        ]
        results = {}
        for index, likelihood in zip(documents, self._lm.loglikelihood_rolling(requests), strict=True):
            if not math.isfinite(likelihood):
                raise gives_nan(candidate, f"on document {index} of {text.name}")
            results[index] = likelihood / text.length(index, self._lm)
        return results


class _Text:
    """A text file as documents."""

    def __init__(self, settings: TextSettings, root: Path) -> None:
        path = root / Path(settings.file).expanduser()
        if not path.is_file():
            raise ReferenceNotFound(f"There is no text file {path}.", hint="Correct evaluate.perplexity.")
        try:
            content = path.read_text(encoding="utf-8")
        except UnicodeDecodeError as error:
            raise InvalidConfig(f"{path} is no UTF-8 text: {error}.", hint="Convert it to UTF-8.") from None
        self.name = settings.name or path.stem
        self.documents = lines(content) if settings.documents == "lines" else chunks(content, settings.characters)
        self._per = settings.per

    def digest(self, conditions: Mapping[str, Any]) -> str:
        content = ["perplexity/1", self._per, self.documents, conditions]
        return hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()

    def price(self, lm: Any) -> float:
        """Tokens of a document: the mean of some of them."""
        return fmean(len(lm.tok_encode(text)) for text in some(self.documents))

    def length(self, index: int, lm: Any) -> int:
        text = self.documents[index]
        return len(text.encode()) if self._per == "byte" else len(lm.tok_encode(text))


def lines(text: str) -> list[str]:
    """The lines that hold more than space.

    >>> lines("one\\n\\n  two\\n")
    ['one', '  two']
    """
    return [line for line in text.splitlines() if line.strip()]


def chunks(text: str, characters: int) -> list[str]:
    """``text`` in pieces of at most so many characters and the space after them, cut between words where possible.

    >>> chunks("a rose is a rose", 6)
    ['a rose ', 'is a ', 'rose']
    """
    pieces = re.findall(rf"(?s).{{1,{characters}}}(?:\s|\Z)|.{{1,{characters}}}", text)
    return [piece for piece in pieces if piece.strip()]
