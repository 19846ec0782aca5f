"""Models of other kinds than Llama: scored as lm-eval does, or refused in one line."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from evaluators.base import Evaluator
from evaluators.harness import Harness
from evaluators.live import LiveModel, config_of
from evaluators.make import make_evaluator
from evaluators.model_kinds import kind_of, looks_ahead
from kinship.checkpoints.opening import open_checkpoint
from kinship.errors import UnsupportedCheckpoint
from tests.evaluators.conftest import (
    DOCUMENTS,
    Tiny,
    as_candidate,
    asked_of_lm_eval,
    make_harness,
    make_settings,
    select,
    write_tasks,
    write_tokenizer,
)

ALL = list(range(DOCUMENTS))
V = 13
TOKENS = {"vocab_size": V, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
BERT = {"vocab_size": V, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2}
LLAMA = BERT | {"max_position_embeddings": 64}
EYES = {key: value for key, value in BERT.items() if key != "vocab_size"} | {"image_size": 28, "patch_size": 14}
T5 = TOKENS | {"d_model": 16, "d_ff": 24, "num_layers": 2, "num_heads": 2, "d_kv": 8, "decoder_start_token_id": 0}
BART = TOKENS | {
    "d_model": 16, "encoder_layers": 1, "decoder_layers": 1, "encoder_attention_heads": 2, "decoder_attention_heads": 2,
    "encoder_ffn_dim": 24, "decoder_ffn_dim": 24, "max_position_embeddings": 64, "decoder_start_token_id": 2,
    "forced_eos_token_id": None, "init_std": 0.5,
}  # fmt: skip
XLNET = {"vocab_size": V, "d_model": 16, "n_layer": 2, "n_head": 2, "d_inner": 24}
RWKV = TOKENS | {"hidden_size": 16, "attention_hidden_size": 16, "num_hidden_layers": 2, "context_length": 64}


def made(name: str, config: str, options: dict[str, Any]) -> Callable[[], Any]:
    return lambda: getattr(transformers, name)(getattr(transformers, config)(**options))


SEQ2SEQ = {
    "t5": made("T5ForConditionalGeneration", "T5Config", T5),
    "mt5, untied": made("MT5ForConditionalGeneration", "MT5Config", T5 | {"tie_word_embeddings": False}),
    "bart": made("BartForConditionalGeneration", "BartConfig", BART),
}
RECURRENT = {
    "rwkv": made("RwkvForCausalLM", "RwkvConfig", RWKV),
    "griffin": made(
        "RecurrentGemmaForCausalLM", "RecurrentGemmaConfig",
        LLAMA | TOKENS | {"num_hidden_layers": 3, "lru_width": 16, "w_init_variance_scale": 1.0},
    ),
}  # fmt: skip
PADDED = {
    "gpt2": made("GPT2LMHeadModel", "GPT2Config", TOKENS | {"n_embd": 16, "n_layer": 2, "n_head": 2}),
    "mamba": made("MambaForCausalLM", "MambaConfig", TOKENS | {"hidden_size": 16, "num_hidden_layers": 2}),
    "a decoder of bert": made("BertLMHeadModel", "BertConfig", BERT | {"is_decoder": True}),
}
VISION_LANGUAGE = {
    "llava": lambda: transformers.LlavaForConditionalGeneration(
        transformers.LlavaConfig(
            text_config=transformers.LlamaConfig(**LLAMA), vision_config=transformers.CLIPVisionConfig(**EYES),
            image_token_index=12,
        )
    ),
    "blip": lambda: transformers.BlipForConditionalGeneration(
        transformers.BlipConfig(text_config=BERT | TOKENS, vision_config=EYES, projection_dim=8)
    ),
}  # fmt: skip
REFUSED = {
    "bert": made("BertForMaskedLM", "BertConfig", BERT),
    "bert, all heads": made("BertForPreTraining", "BertConfig", BERT),
    "bert, no head": made("BertModel", "BertConfig", BERT),
    "modernbert": made("ModernBertForMaskedLM", "ModernBertConfig", LLAMA | TOKENS),
    "a classifier": made("LlamaForSequenceClassification", "LlamaConfig", LLAMA),
    "vit": made("ViTForImageClassification", "ViTConfig", EYES),
    "clip": made("CLIPVisionModel", "CLIPVisionConfig", EYES),
    "xlnet": made("XLNetLMHeadModel", "XLNetConfig", XLNET),
    "whisper": made("WhisperForConditionalGeneration", "WhisperConfig", BART | {"num_mel_bins": 8}),
}


def write(make: Callable[[], Any], folder: Path) -> Path:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(4)
        model = make()
        with torch.no_grad():  # far from each other, as trained weights make tokens
            for parameter in model.parameters():
                parameter.add_(0.3 * torch.randn_like(parameter))
    model.save_pretrained(folder)
    assert write_tokenizer(folder) == V
    return folder


def of_a_text(folder: Path, **more: Any) -> Evaluator:
    (folder.parent / "text.txt").write_text("abc def\n" * 2 + "gh ab\ncc dd\nee ff\na bb\nabc d\nfg hh\n")
    settings = make_settings(perplexity=[{"file": str(folder.parent / "text.txt"), "documents": "lines"}], **more)
    return make_evaluator(settings, open_checkpoint(folder))


@pytest.mark.parametrize("kind", REFUSED)
def test_what_makes_no_text_is_refused_in_a_line(tmp_path: Path, kind: str) -> None:
    folder = write(REFUSED[kind], tmp_path / "model")
    (weights,) = folder.glob("*.safetensors")
    with pytest.raises(UnsupportedCheckpoint, match=r"model is a \w+, which .*(no text|both sides)") as raised:
        of_a_text(folder)
    assert "\n" not in raised.value.message
    assert "AutoModelForCausalLM" in (raised.value.hint or "")
    with open_checkpoint(folder) as checkpoint:
        weights.unlink()  # names are enough
        with pytest.raises(UnsupportedCheckpoint):
            kind_of(checkpoint, config_of(checkpoint))


def test_a_vision_language_model_is_asked_for_text_alone(tmp_path: Path) -> None:
    """By its whole class, whose names its files have; lm-eval's backend hf loads none such."""
    folder = write(VISION_LANGUAGE["llava"], tmp_path / "model")
    live = LiveModel(open_checkpoint(folder), text_only=True)
    live.hold(as_candidate(open_checkpoint(folder)))
    model = transformers.LlavaForConditionalGeneration.from_pretrained(folder).eval()
    ids = torch.tensor([[1, 5, 6, 7]])
    with torch.no_grad():
        torch.testing.assert_close(live.model(ids).logits, model(ids).logits)
    with pytest.raises(UnsupportedCheckpoint, match="backend hf does not load") as raised:
        make_evaluator(make_settings(tasks=["tiny"], written={"backend": "hf"}), open_checkpoint(folder))
    assert "hf-multimodal" in raised.value.hint


def test_nobody_takes_the_score_of_a_text_for_what_a_model_sees(tmp_path: Path) -> None:
    folder = write(VISION_LANGUAGE["llava"], tmp_path / "model")
    with pytest.raises(UnsupportedCheckpoint, match="model is a LlavaForConditionalGeneration, which sees") as raised:
        of_a_text(folder)
    assert "text_only: true" in (raised.value.hint or "")
    assert of_a_text(folder, text_only=True).tasks


def test_a_vision_language_model_that_needs_an_image_is_refused(tmp_path: Path) -> None:
    folder = write(VISION_LANGUAGE["blip"], tmp_path / "model")
    with pytest.raises(UnsupportedCheckpoint, match="BlipForConditionalGeneration, which goes on with no text"):
        of_a_text(folder, text_only=True)


@pytest.mark.parametrize("kind", RECURRENT | PADDED)
def test_attention_to_both_sides_is_found_by_trying(kind: str) -> None:
    assert not looks_ahead((RECURRENT | PADDED)[kind]().eval())
    assert looks_ahead(made("BertLMHeadModel", "BertConfig", BERT | {"is_decoder": False})().eval())


def test_a_model_that_turns_out_to_see_ahead_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write(made("BertLMHeadModel", "BertConfig", BERT), tmp_path / "model")
    monkeypatch.setattr("evaluators.live.kind_of", lambda *_: "causal")
    evaluator = of_a_text(folder)
    with pytest.raises(UnsupportedCheckpoint, match="both sides"):
        evaluator.run(as_candidate(open_checkpoint(folder)), {"text": [0]})


@pytest.mark.parametrize("damage", ["config", "tokenizer", "code"])
def test_what_transformers_cannot_make_is_told_in_a_line(tmp_path: Path, damage: str) -> None:
    folder = write(PADDED["gpt2"], tmp_path / "model")
    if damage == "tokenizer":
        for file in folder.glob("tokenizer*"):
            file.unlink()
    else:
        config = json.loads((folder / "config.json").read_text()) | {"model_type": "of tomorrow"}
        config |= {"auto_map": {"AutoConfig": "x.Y"}} if damage == "code" else {}
        (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(UnsupportedCheckpoint, match="makes no") as raised:
        of_a_text(folder)
    assert "\n" not in raised.value.message


@pytest.mark.parametrize("kind", SEQ2SEQ)
def test_sequence_to_sequence_models_are_scored_as_lm_eval_does(
    tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    folder, names = write(SEQ2SEQ[kind], tmp_path / "model"), sorted(tiny.documents)
    harness = make_harness(tiny, folder)
    assert harness._live.kind == "seq2seq"
    harness.run(as_candidate(open_checkpoint(folder)), dict.fromkeys(names, ALL))
    monkeypatch.chdir(tiny.tasks)
    # In larger batches lm-eval lets an answer be the longer, the longer the prompts beside its own.
    theirs = asked_of_lm_eval(folder, names, tiny.tasks, batch_size=1)["samples"]
    for name in names:
        samples = {sample["doc_id"]: sample["resps"] for sample in theirs[name]}
        ours = answers(harness, name)
        assert ours.keys() == samples.keys()
        for index, given in ours.items():
            flat = [resp for (resp,) in samples[index]]
            if name == "tiny_generate":
                assert given == flat
            else:
                assert [one for one, _ in given] == pytest.approx([float(one) for one, _ in flat], rel=1e-4)
    assert len({str(given) for given in answers(harness, "tiny_choice").values()}) == DOCUMENTS


@pytest.mark.parametrize("kind", SEQ2SEQ | RECURRENT | PADDED)
def test_texts_have_likelihoods(tmp_path: Path, kind: str) -> None:
    folder = write((SEQ2SEQ | RECURRENT | PADDED)[kind], tmp_path / "model")
    values = of_a_text(folder).run(as_candidate(open_checkpoint(folder)), {"text": [0, 3, 5]})["text"]
    assert all(value < 0 for value in values.values())


@pytest.mark.parametrize("kind", RECURRENT | PADDED)
def test_answers_do_not_depend_on_the_batch(tiny: Tiny, tmp_path: Path, kind: str) -> None:
    """RWKV pays no heed to the attention mask: padded on the left it would say something else."""
    folder = write((RECURRENT | PADDED)[kind], tmp_path / "model")
    found = []
    for batch_size in (1, 8):
        harness = make_harness(tiny, folder, tasks=["tiny_generate", "tiny_likelihood"], batch_size=batch_size)
        harness.run(as_candidate(open_checkpoint(folder)), {"tiny_generate": ALL, "tiny_likelihood": ALL})
        found.append(harness)
    assert harness._live.goes_alone == (kind in RECURRENT)
    one, eight = (answers(each, "tiny_generate") for each in found)
    assert one == eight
    assert len({str(answer) for answer in one.values()}) > 1
    one, eight = (answers(each, "tiny_likelihood") for each in found)
    for index in ALL:
        assert one[index][0][0] == pytest.approx(eight[index][0][0], rel=1e-4)


def test_weights_that_rwkv_halves_are_halved_once_each(tmp_path: Path) -> None:
    from safetensors.torch import load_file

    folder = write(made("RwkvForCausalLM", "RwkvConfig", RWKV | {"rescale_every": 1}), tmp_path / "model")
    ids = torch.tensor([[1, 5, 6, 7]])
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    with torch.no_grad():
        expected = model(ids).logits
    live = LiveModel(open_checkpoint(folder))
    for _ in range(2):
        live.load(iter(load_file(folder / "model.safetensors").items()))
        with torch.no_grad():
            assert torch.equal(live.model(ids).logits, expected)


def test_tokenizers_written_in_python(tmp_path: Path) -> None:
    folder = write(made("LlamaForCausalLM", "LlamaConfig", LLAMA | {"vocab_size": 384}), tmp_path / "model")
    for file in folder.glob("tokenizer*"):
        file.unlink()
    digests = set()
    for extra in (125, 100):
        transformers.ByT5Tokenizer(extra_ids=extra).save_pretrained(folder)
        for _ in range(2):
            evaluator = of_a_text(folder)
            digests.add(evaluator.tasks[0].digest)
    assert len(digests) == 2
    assert all(
        value < 0 for value in evaluator.run(as_candidate(open_checkpoint(folder)), {"text": [0]})["text"].values()
    )


def test_a_tokenizer_of_vocabulary_and_merges(tmp_path: Path) -> None:
    """As gpt2 was published, without tokenizer.json."""
    folder = write(PADDED["gpt2"], tmp_path / "model")
    for file in folder.glob("*token*"):
        file.unlink()
    words = ["<|endoftext|>", "a", "b", "c", "d", "e", "f", "g", "h", "\u0120", "ab", "cd", "\u010a"]
    (folder / "vocab.json").write_text(json.dumps({word: index for index, word in enumerate(words)}))
    (folder / "merges.txt").write_text("#version: 0.2\na b\nc d\n")
    evaluator = of_a_text(folder)
    assert all(
        value < 0 for value in evaluator.run(as_candidate(open_checkpoint(folder)), {"text": [0]})["text"].values()
    )


def test_a_task_of_a_description_alone(tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    changes = {"description": "abc", "doc_to_text": "", "target_delimiter": ""}
    folder = write_tasks(tmp_path / "t", select(tiny, "tiny_choice"), tiny_choice=changes)
    harness = make_harness(tiny, folder=folder, tasks=["tiny_choice"])
    found = harness.run(as_candidate(open_checkpoint(tiny.model)), {"tiny_choice": ALL})["tiny_choice"]
    monkeypatch.chdir(folder)
    theirs = asked_of_lm_eval(tiny.model, ["tiny_choice"], folder)["samples"]["tiny_choice"]
    assert found == {sample["doc_id"]: sample["acc"] for sample in theirs}


def answers(harness: Harness, task: str) -> dict[int, list[Any]]:
    """What the model answered, by document."""
    found: dict[int, list[Any]] = {}
    for request in harness._suite._tasks[task].requests(harness._lm, ALL):
        found.setdefault(request.doc_id, []).append(request.resps[0])
    return found
