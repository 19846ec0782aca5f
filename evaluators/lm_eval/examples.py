"""Few-shot examples: lm-eval's own draws, but never a held-out document nor the question itself."""

from collections.abc import Sequence
from typing import Any

from evaluators.scores.splits import content_hash
from kinship.errors import InvalidConfig


class Examples:
    """The examples of each document of a task, drawn once; they depend on task and ``seed`` alone.

    Where examples come from documents of their own, they are those of a whole run of lm-eval with this seed. Where the
    pool holds evaluated documents, lm-eval would show held-out answers to the search, and, without ``fewshot_split``,
    the question's own: there the pool is cut to the search split and each document draws with its own seed.

    Cost: one draw a document; nothing is rendered. Raises `InvalidConfig` where that cannot be done.
    """

    def __init__(self, name: str, task: Any, documents: Sequence[Any], held_out: Sequence[int], seed: int) -> None:
        self.count: int = task.config.num_fewshot
        self._draws: list[Sequence[Any]] = []
        if not self.count:
            return
        if not hasattr(task, "sampler"):
            raise InvalidConfig(
                f"Task {name} is a Python class that draws its few-shot examples itself, held-out ones perhaps.",
                hint="Set its num_fewshot to 0.",
            )
        self.pool = list(task.fewshot_docs())
        hashes = [content_hash(document) for document in self.pool]
        evaluated = {content_hash(document) for document in documents}
        shared = not evaluated.isdisjoint(hashes)
        if not shared and _split_of_examples(task) == _evaluated_split(task):
            raise InvalidConfig(
                f"Task {name} takes its few-shot examples from the documents it evaluates, in another form.",
                hint="Give it a fewshot_split of its own, or set its num_fewshot to 0.",
            )
        if shared:
            hidden = {content_hash(documents[index]) for index in held_out}
            self.pool = [document for document, digest in zip(self.pool, hashes, strict=True) if digest not in hidden]
        if len(self.pool) <= self.count:
            raise InvalidConfig(f"Task {name} has too few examples for num_fewshot {self.count}: {len(self.pool)}.")
        sampler = task.sampler.replace_df(self.pool)
        sampler.set_rnd(seed)
        exclude = shared or task.fewshot_cfg.split == task.config.test_split
        for document in documents:
            if shared:
                sampler.set_rnd(int(content_hash(document, seed)[:16], 16))
            self._draws.append(sampler.sample(n=self.count, eval_doc=document if exclude else None))

    def hand_to(self, task: Any, document: int) -> None:
        """Make the examples of ``document`` those that ``task`` draws next."""
        if self.count:
            task.sampler = _Given(self._draws[document])

    @property
    def digests(self) -> list[str]:
        """Hashes of the pool; with the seed they decide the draws."""
        return [content_hash(document) for document in self.pool] if self.count else []


class _Given:
    """A sampler that has sampled."""

    def __init__(self, examples: Sequence[Any]) -> None:
        self._examples = examples

    def sample(self, **_: Any) -> Sequence[Any]:
        return self._examples


def _evaluated_split(task: Any) -> str | None:
    split: str | None = task.config.test_split if task.has_test_docs() else task.config.validation_split
    return split


def _split_of_examples(task: Any) -> str | None:
    """Where lm-eval takes examples from; None for a list of their own."""
    if task.fewshot_cfg.split is not None:
        return str(task.fewshot_cfg.split)
    if task.fewshot_cfg.samples is not None:
        return None
    config = task.config
    split: str | None = config.training_split or config.validation_split or config.test_split
    return split
