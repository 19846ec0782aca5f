"""Few-shot examples: lm-eval's own draws, but never a held-out document nor the question itself."""

from collections.abc import Sequence
from typing import Any

from evaluators.scores.splits import content_hash
from kinship.errors import InvalidConfig


class Examples:
    """The examples of each document of a task, drawn once; they depend on task and ``seed`` alone.

    They are those of a whole run of lm-eval with this seed, but where they are taken from the documents that are
    evaluated and some of these are held out: lm-eval would show held-out answers to the search, so there the pool is
    cut to the search split and each document draws with its own seed. Nor is the question's own answer shown: where
    lm-eval would do so the document draws again. Of examples from documents of their own, those that repeat evaluated
    ones are treated likewise as far as there are enough others.

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
        digests = [content_hash(document) for document in documents]
        hashes = [content_hash(document) for document in self.pool]
        shared = not set(digests).isdisjoint(hashes)
        same = _split_of_examples(task) == _evaluated_split(task)
        if same and not shared:
            raise InvalidConfig(
                f"Task {name} takes its few-shot examples from the documents it evaluates, in another form.",
                hint="Give it a fewshot_split of its own, or set its num_fewshot to 0.",
            )
        hidden = {digests[index] for index in held_out}
        shown = [document for document, digest in zip(self.pool, hashes, strict=True) if digest not in hidden]
        if not same and len(shown) < self.count + shared:  # 5 of 5, one of which is asked as well: lm-eval's own draw
            shown, shared = self.pool, False
        cut, self.pool = len(shown) < len(self.pool), shown
        if len(self.pool) < self.count + shared:
            raise InvalidConfig(
                f"Task {name} has too few examples for num_fewshot {self.count}: {len(self.pool)}"
                + (", the question's own perhaps among them." if shared else "."),
                hint=f"Set its num_fewshot to {max(0, len(self.pool) - shared)} or less.",
            )
        sampler = task.sampler.replace_df(self.pool)
        sampler.set_rnd(seed)
        # lm-eval's own condition, but for a pool that would be too small for it.
        apart = task.fewshot_cfg.split == task.config.test_split and len(self.pool) > self.count
        for document, digest in zip(documents, digests, strict=True):
            drawn = [] if cut else sampler.sample(n=self.count, eval_doc=document if apart else None)
            if cut or (shared and digest in map(content_hash, drawn)):
                state, own = sampler.rnd, int(content_hash(document, seed)[:16], 16)
                drawn = sampler.set_rnd(own).sample(n=self.count, eval_doc=document)
                sampler.rnd = state
            self._draws.append(drawn)

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
