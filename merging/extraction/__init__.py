"""LoRA adapters made of fine-tunes: the truncated singular value decomposition of task vectors, in peft's format."""
