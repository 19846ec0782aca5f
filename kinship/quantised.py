"""Files whose numbers are codes, not weights: recognised from headers, and refused with what to do."""

import re
from collections.abc import Mapping
from pathlib import Path

from kinship.errors import UnsupportedCheckpoint
from kinship.safetensors_header import TensorEntry

# GPTQ and AWQ; bitsandbytes in 4 and 8 bits; compressed-tensors.
_CODES = re.compile(r".*\.(qweight|qzeros|absmax|quant_map|quant_state\..+|SCB|weight_packed)")
_SCALE = re.compile(r"(?P<weight>.+)_scale(_inv)?")  # beside a weight in one byte: float8 or int8 with scales


def refuse_quantised(path: Path, tensors: Mapping[str, TensorEntry]) -> None:
    """Raise `UnsupportedCheckpoint` where names tell that weights are stored as codes; plain float8 is no code."""
    for name in tensors:
        scale = _SCALE.fullmatch(name)
        weight = tensors.get(scale["weight"]) if scale else None
        if _CODES.fullmatch(name) or (weight is not None and weight.dtype.itemsize == 1):
            raise UnsupportedCheckpoint(
                f"{path} is quantised, as the tensor {name!r} tells; its numbers are codes, not weights.",
                hint="Use the original checkpoint, or dequantise it first.",
            )


def refuse_gguf(file: Path) -> None:
    """Raise `UnsupportedCheckpoint` for a GGUF file, whatever it is called."""
    with open(file, "rb") as opened:
        if opened.read(4) == b"GGUF":
            raise UnsupportedCheckpoint(
                f"{file} is a GGUF file, made for inference and mostly quantised.",
                hint="Use the safetensors it was made from; or load it with transformers "
                "(from_pretrained(folder, gguf_file=...)) and save it with save_pretrained.",
            )
