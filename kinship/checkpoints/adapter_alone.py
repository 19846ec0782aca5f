"""An adapter without its base: the changes themselves, as tensors, for what compares changes and needs no weights."""

from pathlib import Path

import numpy as np

from kinship.checkpoints.adapted import AdaptedCheckpoint
from kinship.checkpoints.adapter_config import CONFIG_NAME, read_adapter_config
from kinship.checkpoints.checkpoint import Checkpoint
from kinship.checkpoints.dtypes import FLOAT32
from kinship.checkpoints.folder_files import find_file
from kinship.checkpoints.header import TensorEntry, read_header
from kinship.checkpoints.lora import WEIGHTS_NAME, factor_of, read_adapter
from kinship.errors import UnsupportedCheckpoint
from kinship.file_state import states_of


class Nothing(Checkpoint):
    """Zeros in the place of a base: of the names and shapes that an adapter's factors have."""

    def read_into(self, name: str, start: int, view: memoryview) -> None:
        """See `Checkpoint.read_into`."""
        np.frombuffer(view, dtype=np.uint8)[:] = 0


def is_adapter_alone(reference: str | Path) -> bool:
    """Whether ``reference`` is a local folder of an adapter, and of no model.

    >>> is_adapter_alone("org/base+org/adapter")
    False
    """
    folder = Path(reference)
    names = {path.name for path in folder.iterdir()} if folder.is_dir() else set()
    return {CONFIG_NAME, WEIGHTS_NAME} <= names and "config.json" not in names


def open_adapter_alone(reference: str | Path) -> AdaptedCheckpoint:
    """The changes of the adapter in folder ``reference``, a matrix ``module.weight`` for each pair of factors.

    Raises `UnsupportedCheckpoint` where its factors do not suffice: DoRA's lengths and starts taken from the base need
    its weights, and what is replaced whole is no change; and what `read_adapter` raises.
    """
    folder = Path(reference)
    file = find_file(folder, WEIGHTS_NAME)
    assert file is not None
    config = read_adapter_config(folder / CONFIG_NAME)
    sides: dict[str, dict[str, TensorEntry]] = {}
    for key, entry in read_header(file).items():
        found = factor_of(key)
        if found is None or config.dora or config.start or config.turned or len(entry.shape) != 2:
            raise UnsupportedCheckpoint(
                f"{folder} cannot be compared without its base: {key!r} is no factor of a plain LoRA change.",
                hint=f"Write BASE+{folder}.",
            )
        module, side = found
        sides.setdefault(module, {})[side] = entry
    tensors = {
        f"{module}.weight": _entry(f"{module}.weight", pair["B"], pair["A"])
        for module, pair in sides.items()
        if pair.keys() == {"A", "B"}
    }
    made_for = config.settings.get("base_model_name_or_path")
    nothing = Nothing(str(made_for or "its base"), folder, tensors, {})
    beside = states_of([folder / CONFIG_NAME, file])
    return AdaptedCheckpoint(str(reference), nothing, read_adapter(config, nothing), beside)


def _entry(name: str, left: TensorEntry, right: TensorEntry) -> TensorEntry:
    shape = (left.shape[0], right.shape[1])
    return TensorEntry(name, FLOAT32, shape, left.file, 0, 4 * shape[0] * shape[1], left.state)
