"""A live model as lm-eval sees one, without its progress bars, with batches that fit the memory."""

import hashlib
import logging
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

from evaluators.live import LiveModel
from evaluators.lm_eval.likelihoods import Kept, Prepared, prepare, score
from evaluators.lm_eval.limits import unfit
from evaluators.lm_eval.prefixes import branched, longest_shared, require_branching, shared_rows
from evaluators.settings import EvaluateSettings
from kinship.errors import UnsupportedCheckpoint

LARGEST_BATCH = {"cpu": 64, "cuda": 512}
SHORT = 1_000  # characters; to encode a longer text costs little beside running it


def as_lm_eval(live: LiveModel, settings: EvaluateSettings) -> Any:
    """An lm-eval ``HFLM`` on ``live``; raises `UnsupportedCheckpoint` for a tokenizer without a beginning or end.

    Where memory runs out, batches are halved and the requests asked again; the smaller size stays for all candidates,
    which have one shape. Generations that sample are made one at a time, each with a seed of its own, so that they
    do not depend on what else is asked; so are those of a model that goes alone. Sequence-to-sequence models generate
    from prompts of one length together: lm-eval lets an answer be longer the longer the longest prompt beside its own.
    Likelihoods of weights in 16 bits are taken in float32: in 16 bits they tie.
    """
    from lm_eval.models.huggingface import HFLM

    sharing = settings.share_prefixes and live.kind == "causal"
    if sharing:
        require_branching(live.model, type(live.model).__name__)
    encoded: dict[Any, tuple[int, ...]] = {}
    kept = Kept()

    class Model(HFLM):  # type: ignore[misc]
        _latest: Prepared | None = None
        _asked: Any = ()

        def loglikelihood(self, requests: Any, disable_tqdm: bool = True) -> Any:
            self._asked = requests
            return self._fitting(self._loglikelihood, requests)

        def _loglikelihood(self, requests: Any, disable_tqdm: bool) -> Any:
            # Every candidate is asked the same; a race asks the same blocks of every candidate.
            asked = tuple(request.args for request in requests)
            prepared = kept.get(asked)
            if prepared:
                return self._score(prepared)
            answers = super().loglikelihood(requests, disable_tqdm)  # which encodes them for _loglikelihood_tokens
            if self._latest:
                kept.put(asked, self._latest)
            return answers

        def loglikelihood_rolling(self, requests: Any, disable_tqdm: bool = True) -> Any:
            return self._fitting(super().loglikelihood_rolling, requests)

        def generate_until(self, requests: Any, disable_tqdm: bool = True) -> Any:
            generate, answers = super().generate_until, [""] * len(requests)
            greedy = [place for place, request in enumerate(requests) if not samples(request.args[1])]
            for places in self._together([requests[place].args[0] for place in greedy], greedy):
                found = self._fitting(generate, [requests[place] for place in places])
                for place, answer in zip(places, found, strict=True):
                    answers[place] = answer
            repeats: Counter[int] = Counter()
            for place in sorted(set(range(len(requests))) - set(greedy)):
                request = requests[place]
                with _seeded(settings.seed, request.args[0], repeats[id(request)], self.device):
                    (answers[place],) = generate([request], disable_tqdm=True)
                repeats[id(request)] += 1
            return answers

        def _together(self, prompts: Sequence[str], places: Sequence[int]) -> list[list[int]]:
            """``places`` of ``prompts`` by whom a generation may share a batch with."""
            groups: dict[int, list[int]] = {}
            for prompt, place in zip(prompts, places, strict=True):
                length = self.tok_batch_encode([prompt])[0].shape[1] if live.kind == "seq2seq" else 0
                groups.setdefault(place if live.goes_alone else length, []).append(place)
            return list(groups.values())

        def tok_encode(self, string: str, *arguments: Any, **options: Any) -> list[int]:
            # Every candidate is asked the same texts.
            if len(string) > SHORT:
                return list(super().tok_encode(string, *arguments, **options))
            key = (string, arguments, tuple(options.items()))
            if key not in encoded:
                encoded[key] = tuple(super().tok_encode(string, *arguments, **options))
            return list(encoded[key])

        def _loglikelihood_tokens(self, requests: Any, disable_tqdm: bool = True, **options: Any) -> Any:
            pairs = [(context, continuation) for _, context, continuation in requests]
            for place, (texts, context, continuation) in enumerate(requests):
                if not (context and 0 < len(continuation) <= self.max_length):
                    raise unfit(self, context, continuation, self._asked[place] if texts else None)
            if self.backend != "causal":
                self._latest = None
                return super()._loglikelihood_tokens(requests, disable_tqdm=True, **options)
            together = shared_rows(pairs, longest_shared(self.model.config, self.max_length)) if sharing else []
            self._latest = prepare(pairs, self.batch_size, self.max_length, together)
            return self._score(self._latest)

        def _score(self, prepared: Prepared) -> list[tuple[float, bool]]:
            return score(prepared, self._logits, self.device, self.softmax_dtype)

        def _logits(self, ids: torch.Tensor, branches: torch.Tensor | None = None) -> torch.Tensor:
            logits: torch.Tensor = self._model_call(ids) if branches is None else branched(self.model, ids, branches)
            return logits

        def _fitting(self, ask: Callable[..., Any], requests: Any) -> Any:
            while True:
                try:
                    return ask(requests, disable_tqdm=True)
                except RuntimeError as error:
                    if not out_of_memory(error) or self.batch_size_per_gpu == 1:
                        raise
                # Outside the except block, whose traceback would keep the tensors alive.
                self.batch_size_per_gpu //= 2
                kept.clear()
                if self.device.type == "cuda":
                    torch.cuda.empty_cache()

    logging.getLogger("lm_eval").setLevel(logging.ERROR)  # it warns of models that are given ready
    size = settings.batch_size
    lm = Model(
        pretrained=live.model,
        backend=live.kind,
        tokenizer=live.tokenizer,
        batch_size=LARGEST_BATCH.get(torch.device(live.device).type, 512) if size == "auto" else size,
        device=live.device,
        softmax_dtype=None if live.dtype == torch.float32 else "float32",
    )
    if lm.prefix_token_id is None:
        raise UnsupportedCheckpoint(
            f"The tokenizer {type(live.tokenizer).__name__} has no token that begins or ends a text.",
            hint="Name its bos_token or eos_token in tokenizer_config.json.",
        )
    # Both are worked out anew for every document unless they were given.
    lm._max_length, lm.custom_prefix_token_id = lm.max_length, lm.prefix_token_id
    return lm


def samples(generation: Mapping[str, Any]) -> bool:
    """Whether these settings of a generation leave anything to chance; a temperature alone may.

    >>> samples({"do_sample": False, "temperature": 1.0}), samples({"temperature": 0.7}), samples({"until": ["."]})
    (False, True, False)
    """
    said = generation.get("do_sample")
    return bool(said) if said is not None else float(generation.get("temperature") or 0) > 0


def out_of_memory(error: RuntimeError) -> bool:
    """Whether smaller batches may help.

    >>> out_of_memory(torch.OutOfMemoryError("CUDA out of memory.")), out_of_memory(RuntimeError("shapes differ"))
    (True, False)
    """
    from accelerate.utils.memory import should_reduce_batch_size  # type: ignore[import-untyped]

    return isinstance(error, torch.OutOfMemoryError) or bool(should_reduce_batch_size(error))


class _seeded:  # noqa: N801 - a context manager that reads as a word
    """Random numbers of torch that depend on ``seed``, prompt and repeat alone; its state is put back after."""

    def __init__(self, seed: int, prompt: str, repeat: int, device: torch.device) -> None:
        self._seed = int(hashlib.sha256(f"{seed}:{repeat}:{prompt}".encode()).hexdigest()[:15], 16)
        self._fork = torch.random.fork_rng(devices=[device] if device.type == "cuda" else [])

    def __enter__(self) -> None:
        self._fork.__enter__()
        torch.manual_seed(self._seed)

    def __exit__(self, *error: Any) -> None:
        self._fork.__exit__(*error)
