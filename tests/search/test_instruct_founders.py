"""Two instruct founders of a pretrained base, as README has it: no more than `base`, `founders` and `evaluate`.

Weights are tables of what follows what, so every generation is known beforehand.
"""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
import yaml

from evaluators.settings import EvaluateSettings
from search.config import parse_config
from service.answers.score import score_models
from service.pages.run_folder import run_evolution

WORDS = ["<pad>", "<bos>", "<|endoftext|>", "<|im_end|>", "<unk>", *"q=0123456789abcd"]
START = "<|im_start|>"
TEMPLATE = f"{{% for m in messages %}}{START}{{{{ m['content'] }}}}{{% endfor %}}"
TALK = {"=": "3", "3": "<|im_end|>", "<|im_end|>": "9", "9": "9"}


def write(folder: Path, follows: dict[str, str], seed: int, *, instruct: bool, added: bool) -> None:
    """``added``: the token that begins a turn, unknown to the base, is one more in the vocabulary."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    words = WORDS + [START] * (instruct and added)
    inner = Tokenizer(models.WordLevel({word: id for id, word in enumerate(WORDS)}, unk_token="<unk>"))
    inner.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    inner.decoder = decoders.Fuse()
    inner.add_special_tokens(["<pad>", "<bos>", "<|endoftext|>", "<|im_end|>"])
    end = "<|im_end|>" if instruct else "<|endoftext|>"
    special = {"bos_token": "<bos>", "eos_token": end, "pad_token": "<pad>", "unk_token": "<unk>"}
    tokens = transformers.PreTrainedTokenizerFast(tokenizer_object=inner, **special)
    if instruct:
        tokens.chat_template = TEMPLATE if added else TEMPLATE.replace(START, "")
    if START in words:
        tokens.add_special_tokens({"additional_special_tokens": [START]})
    config = transformers.LlamaConfig(
        vocab_size=len(words), hidden_size=32, intermediate_size=8, num_hidden_layers=1, num_attention_heads=1,
        max_position_embeddings=64, bos_token_id=1, eos_token_id=2, pad_token_id=0,
    )  # fmt: skip
    model: Any = transformers.LlamaForCausalLM(config).float()
    torch.manual_seed(seed)
    with torch.no_grad():
        for weight in (model.model.layers[0].self_attn.o_proj.weight, model.model.layers[0].mlp.down_proj.weight):
            weight.zero_()
        model.model.embed_tokens.weight.copy_(torch.eye(len(words), 32))
        model.lm_head.weight.copy_(0.01 * torch.randn_like(model.lm_head.weight))
        for one, other in follows.items():
            model.lm_head.weight[WORDS.index(other), WORDS.index(one)] += 5.0
    ends = [2, 3] if instruct else 2
    model.generation_config = transformers.GenerationConfig(bos_token_id=1, pad_token_id=0, eos_token_id=ends)
    model.save_pretrained(folder)
    tokens.save_pretrained(folder)


@pytest.mark.parametrize("added", [False, True], ids=["one vocabulary", "a token of their own"])
def test_the_search_and_its_child_talk_as_the_founders_do(added: bool, tmp_path: Path) -> None:
    write(tmp_path / "base", {"=": "9", "9": "9"}, 0, instruct=False, added=added)
    for seed, name in enumerate(("one", "two"), 1):
        write(tmp_path / name, TALK, seed, instruct=True, added=added)
    asked = [{"q": f"q{a}{b}=", "a": "3"} for a in "abcd" for b in "abcd"]
    (tmp_path / "t.jsonl").write_text("".join(json.dumps(row) + "\n" for row in asked))
    task = {
        "task": "mine", "dataset_path": "json", "dataset_kwargs": {"data_files": {"test": "t.jsonl"}},
        "test_split": "test", "output_type": "generate_until", "doc_to_text": "{{q}}", "doc_to_target": "{{a}}",
        "generation_kwargs": {"until": ["\n"], "max_gen_toks": 8},
        "metric_list": [{"metric": "exact_match", "aggregation": "mean", "higher_is_better": True}],
    }  # fmt: skip
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(task))
    evaluate = {"tasks": ["mine"], "task_path": str(tmp_path), "apply_chat_template": True}
    config = parse_config(
        {
            "base": "base",
            "founders": ["one", "two"],
            "evaluate": evaluate,
            "strategy": {"name": "pairs"},
            "stop": {"generations": 1},
        }
    )
    run = tmp_path / "run"
    view = run_evolution(config, run, root=tmp_path, cache=None, observer=lambda name, facts: None)
    found = {person["id"]: person["scores"]["search"]["value"] for person in view.export["individuals"]}
    settings = EvaluateSettings.model_validate(evaluate)
    alone = score_models([str(tmp_path / name) for name in ("one", "two")], settings, tmp_path).models
    assert [found[name] for name in ("one", "two")] == [one.splits["search"].value for one in alone] == [1.0, 1.0]
    assert found["1-1"] == 1.0
    child = transformers.AutoModelForCausalLM.from_pretrained(run / "best-offspring")
    tokens = transformers.AutoTokenizer.from_pretrained(run / "best-offspring")
    chat = tokens.apply_chat_template([{"role": "user", "content": "qab="}], return_tensors="pt", return_dict=True)
    said = tokens.decode(child.generate(**chat, max_new_tokens=8, do_sample=False)[0])
    assert said == f"{START * added}qab=3<|im_end|>"
