"""Train LoRA adapters of a causal model on the words of minimal pairs, by peft."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn import functional

from service.demo.smol.deals import Founder, SmolSettings
from service.demo.smol.phenomena import Pair

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Step = Callable[[], None]


def train_adapter(
    base: Path,
    folder: Path,
    drawn: Iterator[Pair],
    settings: SmolSettings,
    founder: Founder,
    step: Step,
    start: Path | None = None,
    enough: Callable[[], bool] = lambda: False,
) -> None:
    """Train one adapter of every linear layer of ``base`` (rank ``settings.rank``) and save it into ``folder``.

    The loss is that of the good word alone. ``step`` is called after every step; ``start``: an adapter to go on with;
    ``enough`` may end it early. Cost: some 2 CPU seconds a step of 16 pairs at 135M parameters, 3 GB of memory.
    """
    from peft import LoraConfig, get_peft_model, set_peft_model_state_dict
    from safetensors.torch import load_file
    from transformers import AutoModelForCausalLM, AutoTokenizer

    words = AutoTokenizer.from_pretrained(base, trust_remote_code=False)
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # of peft, which calls transformers by names that will go
        torch.manual_seed(settings.seed)
        model: Any = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32, trust_remote_code=False)
        config = LoraConfig(
            r=settings.rank, lora_alpha=settings.rank, target_modules="all-linear", task_type="CAUSAL_LM"
        )
        model = get_peft_model(model, config)
        if start is not None:
            set_peft_model_state_dict(model, load_file(start / "adapter_model.safetensors"))
        trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
        optimizer = torch.optim.AdamW(trained, lr=founder.learning_rate, weight_decay=0.0)
        schedule = torch.optim.lr_scheduler.OneCycleLR(
            optimizer, founder.learning_rate, total_steps=founder.steps, pct_start=0.2
        )
        for _ in range(founder.steps):
            ids, labels = encode(words, [next(drawn) for _ in range(settings.batch_size)])
            optimizer.zero_grad()
            torch.autograd.backward(_loss(model, ids, labels))
            torch.nn.utils.clip_grad_norm_(trained, 1.0)
            optimizer.step()
            schedule.step()
            step()
            if enough():
                break
    model.peft_config["default"].base_model_name_or_path = str(base)
    model.save_pretrained(folder, save_embedding_layers=False)


def encode(words: PreTrainedTokenizerBase, batch: Sequence[Pair]) -> tuple[Tensor, Tensor]:
    """Token ids (batch, longest), padded on the right, and int64 labels of that shape: the good words', else -100."""
    rows = [(_ids(words, pair.text), _ids(words, f" {pair.good}")) for pair in batch]
    length = max(len(text) + len(word) for text, word in rows)
    ids = torch.zeros(len(rows), length, dtype=torch.long)
    labels = torch.full_like(ids, -100)
    for row, (text, word) in enumerate(rows):
        ids[row, : len(text) + len(word)] = torch.tensor(text + word)
        labels[row, len(text) : len(text) + len(word)] = torch.tensor(word)
    return ids, labels


def _ids(words: PreTrainedTokenizerBase, text: str) -> list[int]:
    found: list[int] = words(text, add_special_tokens=False)["input_ids"]
    return found


def _loss(model: Any, ids: Tensor, labels: Tensor) -> Tensor:
    """Cross entropy of the labelled tokens. The head, a fifth of the work, sees only what predicts them."""
    causal = model.get_base_model()
    states = causal.model(input_ids=ids).last_hidden_state[:, :-1]
    asked = labels[:, 1:] != -100
    return functional.cross_entropy(causal.lm_head(states[asked]), labels[:, 1:][asked])
