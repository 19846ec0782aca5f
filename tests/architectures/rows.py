"""Architecture classes of transformers, tiny: one row each, of every kind that people merge."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import transformers

Tensors = dict[str, torch.Tensor]

TOKENS = {"vocab_size": 40, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
SIZES = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2}
LLAMA = TOKENS | SIZES | {"num_key_value_heads": 2, "max_position_embeddings": 128}
EXPERTS = {"num_experts_per_tok": 2, "moe_intermediate_size": 8}
GPT = TOKENS | {"n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 128}
T5 = TOKENS | {"d_model": 16, "d_kv": 8, "d_ff": 24, "num_layers": 3, "num_decoder_layers": 2, "num_heads": 2}
BART = TOKENS | {
    "d_model": 16, "encoder_layers": 3, "decoder_layers": 2, "encoder_attention_heads": 2, "decoder_attention_heads": 2,
    "encoder_ffn_dim": 24, "decoder_ffn_dim": 24, "decoder_start_token_id": 2, "forced_eos_token_id": None,
}  # fmt: skip
EYES = SIZES | {"image_size": 28, "patch_size": 14, "num_hidden_layers": 3}


@dataclass(frozen=True)
class Row:
    """One architecture: its ``kind`` and how to make it, and in which form its base lies on disk.

    text: whether lm-eval can ask it for text. base_file: what an older or another writer would have made of the base's
    tensors; its fine-tunes are as transformers saves them. shards: written in several files. tokenizer: ``bytes`` for
    ByT5's, which is written in Python, else one of characters.
    """

    name: str
    kind: str
    make: Callable[[], Any]
    text: bool = True
    base_file: Callable[[Tensors], Tensors] = lambda tensors: tensors
    form: str = ""
    shards: bool = False
    dtype: torch.dtype = torch.float32
    tokenizer: str = "characters"

    @property
    def files(self) -> str:
        """Their form, where it is not one file in fp32 as saved today."""
        parts = ["shards"] * self.shards + [str(self.dtype).removeprefix("torch.")] * (self.dtype != torch.float32)
        return "; ".join([*parts, self.form] if self.form else parts)

    @property
    def classname(self) -> str:
        """Of the model."""
        return type(self.make()).__name__


def _of(model: str, config: str, **options: Any) -> Callable[[], Any]:
    return lambda: getattr(transformers, model)(getattr(transformers, config)(**options))


def _renamed(old: str, new: str) -> Callable[[Tensors], Tensors]:
    return lambda tensors: {name.replace(old, new, 1): tensor for name, tensor in tensors.items()}


def _hub_gpt2(tensors: Tensors) -> Tensors:
    masks = {f"h.{layer}.attn.bias": torch.ones(128, 128).tril()[None, None] for layer in range(2)}
    return _renamed("transformer.", "")(tensors) | masks


def _old_neox(tensors: Tensors) -> Tensors:
    buffers: Tensors = {}
    for layer in range(2):
        attention = f"gpt_neox.layers.{layer}.attention"
        buffers |= {
            f"{attention}.bias": torch.ones(1, 1, 8, 8).bool(),
            f"{attention}.masked_bias": torch.tensor(-1e9),
            f"{attention}.rotary_emb.inv_freq": torch.ones(1),
        }
    return tensors | buffers


def _old_llama(tensors: Tensors) -> Tensors:
    return tensors | {f"model.layers.{layer}.self_attn.rotary_emb.inv_freq": torch.ones(4) for layer in range(2)}


def _with_positions(name: str, length: int) -> Callable[[Tensors], Tensors]:
    return lambda tensors: tensors | {name: torch.arange(length)[None]}


def _gates_in_fp32(tensors: Tensors) -> Tensors:
    return {name: tensor.float() if "gate.weight" in name else tensor for name, tensor in tensors.items()}


def _qwen2_vl() -> Any:
    vision = {"depth": 3, "embed_dim": 16, "hidden_size": 16, "num_heads": 2, "mlp_ratio": 2, "patch_size": 14}
    text = LLAMA | {"rope_parameters": {"rope_type": "default", "mrope_section": [1, 1, 2], "rope_theta": 1e4}}
    config = transformers.Qwen2VLConfig(
        text_config=text, vision_config=vision, image_token_id=30, video_token_id=31, vision_start_token_id=32,
        vision_end_token_id=33,
    )  # fmt: skip
    return transformers.Qwen2VLForConditionalGeneration(config)


def _gemma3() -> Any:
    text = transformers.Gemma3TextConfig(**LLAMA, head_dim=8)
    config = transformers.Gemma3Config(
        text_config=text, vision_config=transformers.SiglipVisionConfig(**EYES), mm_tokens_per_image=4,
        image_token_index=30, boi_token_index=31, eoi_token_index=32,
    )  # fmt: skip
    return transformers.Gemma3ForConditionalGeneration(config)


def _llava() -> Any:
    config = transformers.LlavaConfig(
        text_config=transformers.LlamaConfig(**LLAMA), vision_config=transformers.CLIPVisionConfig(**EYES),
        image_token_index=30,
    )  # fmt: skip
    return transformers.LlavaForConditionalGeneration(config)


def _mllama() -> Any:
    text = transformers.MllamaTextConfig(**LLAMA | {"num_hidden_layers": 3}, cross_attention_layers=[1])
    vision = transformers.MllamaVisionConfig(
        hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_global_layers=1, attention_heads=2,
        image_size=28, patch_size=14, vision_output_dim=32, intermediate_layers_indices=[0],
        supported_aspect_ratios=[[1, 1]], max_num_tiles=1,
    )  # fmt: skip
    config = transformers.MllamaConfig(text_config=text, vision_config=vision, image_token_index=30)
    return transformers.MllamaForConditionalGeneration(config)


def _clip() -> Any:
    text = TOKENS | SIZES | {"max_position_embeddings": 16}
    return transformers.CLIPModel(transformers.CLIPConfig(text_config=text, vision_config=EYES, projection_dim=8))


ROWS = (
    Row("Llama, untied", "dense decoder", _of("LlamaForCausalLM", "LlamaConfig", **LLAMA),
        base_file=_old_llama, form="the base with inv_freq"),
    Row("Llama, tied", "dense decoder", _of("LlamaForCausalLM", "LlamaConfig", **LLAMA, tie_word_embeddings=True),
        shards=True),
    Row("Qwen2", "dense decoder", _of("Qwen2ForCausalLM", "Qwen2Config", **LLAMA, tie_word_embeddings=True),
        dtype=torch.bfloat16),
    Row("Gemma 3, text", "dense decoder", _of("Gemma3ForCausalLM", "Gemma3TextConfig", **LLAMA, head_dim=8)),
    Row("Phi-3", "dense decoder", _of("Phi3ForCausalLM", "Phi3Config", **LLAMA)),
    Row("GPT-2", "GPT", _of("GPT2LMHeadModel", "GPT2Config", **GPT),
        base_file=_hub_gpt2, form="the base as on the Hub: no prefix, causal masks"),
    Row("GPT-Neo", "GPT", _of("GPTNeoForCausalLM", "GPTNeoConfig", **TOKENS, hidden_size=16, num_layers=2, num_heads=2,
        attention_types=[[["global", "local"], 1]], max_position_embeddings=128)),
    Row("Pythia", "GPT", _of("GPTNeoXForCausalLM", "GPTNeoXConfig", **TOKENS | SIZES, max_position_embeddings=128),
        base_file=_old_neox, form="the base with masks and inv_freq"),
    Row("OPT, projected embeddings", "GPT", _of("OPTForCausalLM", "OPTConfig", **TOKENS, hidden_size=16,
        word_embed_proj_dim=12, ffn_dim=24, num_hidden_layers=2, num_attention_heads=2, do_layer_norm_before=False,
        max_position_embeddings=128)),
    Row("BLOOM", "ALiBi decoder", _of("BloomForCausalLM", "BloomConfig", **TOKENS, hidden_size=16, n_layer=2, n_head=2),
        base_file=_renamed("transformer.", ""), form="the base without prefix"),
    Row("Falcon", "ALiBi decoder", _of("FalconForCausalLM", "FalconConfig", **TOKENS, hidden_size=16,
        num_hidden_layers=2, num_attention_heads=2, alibi=True)),
    Row("MPT", "ALiBi decoder", _of("MptForCausalLM", "MptConfig", **TOKENS, d_model=16, n_layers=2, n_heads=2)),
    Row("Mixtral", "mixture of experts", _of("MixtralForCausalLM", "MixtralConfig", **LLAMA, num_local_experts=12),
        dtype=torch.bfloat16, base_file=_gates_in_fp32, form="gates of the base in fp32"),
    Row("Qwen2-MoE", "mixture of experts", _of("Qwen2MoeForCausalLM", "Qwen2MoeConfig", **LLAMA, **EXPERTS,
        num_experts=3, shared_expert_intermediate_size=8), shards=True),
    Row("Qwen3-MoE", "mixture of experts", _of("Qwen3MoeForCausalLM", "Qwen3MoeConfig", **LLAMA, **EXPERTS,
        num_experts=4, head_dim=8)),
    Row("DeepSeek-V3", "latent attention", _of("DeepseekV3ForCausalLM", "DeepseekV3Config", **LLAMA, **EXPERTS,
        n_routed_experts=4, n_group=2, topk_group=1, n_shared_experts=1, first_k_dense_replace=1, q_lora_rank=8,
        kv_lora_rank=8, qk_rope_head_dim=4, qk_nope_head_dim=4, v_head_dim=8)),
    Row("OLMoE", "mixture of experts", _of("OlmoeForCausalLM", "OlmoeConfig", **LLAMA, num_experts=4,
        num_experts_per_tok=2)),
    Row("GraniteMoE", "mixture of experts", _of("GraniteMoeForCausalLM", "GraniteMoeConfig", **LLAMA,
        num_local_experts=4, num_experts_per_tok=2)),
    Row("GPT-OSS", "mixture of experts", _of("GptOssForCausalLM", "GptOssConfig", **LLAMA, num_local_experts=4,
        num_experts_per_tok=2, head_dim=8)),
    Row("Jamba", "hybrid of attention and state space", _of("JambaForCausalLM", "JambaConfig",
        **LLAMA | {"num_hidden_layers": 4}, num_experts=4, num_experts_per_tok=2, attn_layer_period=2,
        attn_layer_offset=1, expert_layer_period=2, expert_layer_offset=1, mamba_d_state=4, mamba_dt_rank=4,
        use_mamba_kernels=False)),
    Row("Mamba", "state space", _of("MambaForCausalLM", "MambaConfig", **TOKENS, hidden_size=16, num_hidden_layers=2,
        state_size=4)),
    Row("Mamba-2", "state space", _of("Mamba2ForCausalLM", "Mamba2Config", **TOKENS, hidden_size=16,
        num_hidden_layers=2, state_size=4, num_heads=4, head_dim=8, n_groups=1, chunk_size=8)),
    Row("RWKV", "linear recurrence", _of("RwkvForCausalLM", "RwkvConfig", **TOKENS, hidden_size=16,
        attention_hidden_size=16, num_hidden_layers=2, context_length=128)),
    Row("RecurrentGemma", "linear recurrence", _of("RecurrentGemmaForCausalLM", "RecurrentGemmaConfig",
        **LLAMA | {"num_hidden_layers": 3}, lru_width=16)),
    Row("T5", "encoder and decoder", _of("T5ForConditionalGeneration", "T5Config", **T5, decoder_start_token_id=0)),
    Row("ByT5", "encoder and decoder", _of("T5ForConditionalGeneration", "T5Config", **T5 | {"vocab_size": 384},
        decoder_start_token_id=0, tie_word_embeddings=False, feed_forward_proj="gated-gelu"), tokenizer="bytes"),
    Row("BART", "encoder and decoder", _of("BartForConditionalGeneration", "BartConfig", **BART,
        max_position_embeddings=128)),
    Row("Pegasus", "encoder and decoder", _of("PegasusForConditionalGeneration", "PegasusConfig",
        **BART | {"decoder_start_token_id": 0}, max_position_embeddings=128)),
    Row("Whisper", "speech", _of("WhisperForConditionalGeneration", "WhisperConfig",
        **BART, num_mel_bins=8, max_source_positions=16, max_target_positions=16, suppress_tokens=[],
        begin_suppress_tokens=[]), text=False),
    Row("Wav2Vec2", "speech", _of("Wav2Vec2ForCTC", "Wav2Vec2Config", **TOKENS | SIZES, conv_dim=(8, 8),
        conv_kernel=(4, 3), conv_stride=(4, 2), num_feat_extract_layers=2, num_conv_pos_embeddings=4,
        num_conv_pos_embedding_groups=2), text=False),
    Row("LLaVA", "vision and language", _llava),
    Row("Qwen2-VL", "vision and language", _qwen2_vl),
    Row("Gemma 3", "vision and language", _gemma3),
    Row("Llama 3.2 Vision", "vision and language", _mllama),
    Row("BERT", "encoder", _of("BertForMaskedLM", "BertConfig", **TOKENS | SIZES), text=False,
        base_file=_with_positions("bert.embeddings.position_ids", 512), form="the base with position_ids"),
    Row("DeBERTa", "encoder", _of("DebertaV2ForSequenceClassification", "DebertaV2Config", **TOKENS | SIZES,
        relative_attention=True, pos_att_type=["p2c", "c2p"]), text=False),
    Row("ViT", "vision", _of("ViTForImageClassification", "ViTConfig", **EYES), text=False),
    Row("ResNet", "convolutions", _of("ResNetForImageClassification", "ResNetConfig", embedding_size=8,
        hidden_sizes=[8, 16], depths=[1, 2], layer_type="basic"), text=False),
    Row("CLIP", "contrastive", _clip, text=False),
)  # fmt: skip
