"""Python functions as evaluators, good and bad."""

from collections.abc import Sequence
from typing import Any

import torch

PROMPTS = [f"{one}{two}=" for one in "abcd" for two in "efgh"]


class Surprise:
    """How surprised the model is by ``letter`` after each prompt, turned round."""

    version = "1"

    def __init__(self, letter: str = "a") -> None:
        self.letter = letter

    def documents(self) -> list[str]:
        return PROMPTS

    def score(self, model: Any, tokenizer: Any, documents: Sequence[Any]) -> list[float]:
        (token,) = tokenizer.encode(self.letter)
        ids = torch.tensor([tokenizer.encode(document) for document in documents], device=model.device)
        return model(ids).logits[:, -1].log_softmax(dim=-1)[:, token].tolist()  # type: ignore[no-any-return]


class Short(Surprise):
    def score(self, model: Any, tokenizer: Any, documents: Sequence[Any]) -> list[float]:
        return super().score(model, tokenizer, documents)[1:]


class Nan(Surprise):
    def score(self, model: Any, tokenizer: Any, documents: Sequence[Any]) -> list[float]:
        return [float("nan")] * len(documents)


class Enormous(Surprise):
    """Finite numbers, whose mean is not."""

    def score(self, model: Any, tokenizer: Any, documents: Sequence[Any]) -> list[float]:
        return [1e308] * len(documents)


class Buggy(Surprise):
    def score(self, model: Any, tokenizer: Any, documents: Sequence[Any]) -> list[float]:
        return [1.0 / (len(documents) - len(documents))]


class Vandal(Surprise):
    """Changes the model, which it must not."""

    def score(self, model: Any, tokenizer: Any, documents: Sequence[Any]) -> list[float]:
        found = super().score(model, tokenizer, documents)
        model.lm_head.weight.neg_()
        return found


def made(letter: str) -> Surprise:
    return Surprise(letter)


no_judge = dict
