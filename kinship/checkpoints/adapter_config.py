"""What an adapter says of itself: its ``adapter_config.json``, and by it the scale, rank and start of each module."""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kinship.checkpoints.folder_files import read_json
from kinship.errors import InvalidConfig, MalformedCheckpoint, UnsupportedCheckpoint
from kinship.patterns import Pattern, UnsupportedPattern

CONFIG_NAME = "adapter_config.json"
AGAIN = "Save or download the adapter again."
MAX_PATTERNS = 10_000
MERGE_IT = "Merge it into its base with peft (merge_and_unload), and use the merged model."

# Settings of peft that make of a weight what no tensor of the base's names can hold, or that are not read here.
_UNSUPPORTED = (
    "use_qalora",
    "use_bdlora",
    "alora_invocation_tokens",
    "arrow_config",
    "kasa_config",
    "monteclora_config",
    "layer_replication",
)
# Initialisations that change the base in a way that cannot be done again from base and adapter.
_LOST_STARTS = {
    "pissa_niter": "a randomised decomposition, another one at each load",
    "corda": "made from data that the adapter does not hold",
    "loftq": "a base that is quantised anew at each load",
}
_CONVERT = (
    "Convert it where it was trained: peft's save_pretrained(..., path_initial_model_for_weight_conversion=...) "
    "writes a plain LoRA adapter of the original base."
)
_STARTS = ("pissa", "olora")
# What decides how weights are changed and has few values; "false" in quotes would count as true.
_VALUES: dict[str, tuple[object, ...]] = {
    **dict.fromkeys(("fan_in_fan_out", "use_dora", "use_rslora", "lora_bias", "ensure_weight_tying"), (False, True)),
    "bias": ("none", "all", "lora_only"),
}


@dataclass(frozen=True)
class AdapterConfig:
    """A checked ``adapter_config.json`` of ``folder``."""

    folder: Path
    settings: Mapping[str, Any]

    @property
    def turned(self) -> bool:
        """Whether linear layers store their transpose (in, out)."""
        return bool(self.settings.get("fan_in_fan_out"))

    @property
    def dora(self) -> bool:
        """Whether rows of changed weights have a trained length (DoRA, arXiv 2402.09353)."""
        return bool(self.settings.get("use_dora"))

    @property
    def start(self) -> str | None:
        """``pissa`` or ``olora`` where the base lost the first factors' product."""
        name = str(self.settings.get("init_lora_weights", "")).lower()
        return name if name in _STARTS else None

    @property
    def ties(self) -> bool:
        """Whether a head that is tied to the embedding was kept so."""
        return bool(self.settings.get("ensure_weight_tying"))

    @property
    def target_parameters(self) -> list[str]:
        """The ends of names of parameters, weights of no layer, that are changed; raises `MalformedCheckpoint`."""
        return self._names("target_parameters")

    def saves(self, module: str) -> bool:
        """Whether ``module`` was trained as a whole, as a copy of its own: peft compares the ends of names."""
        return any(module.endswith(name) for name in self._names("modules_to_save"))

    def tokens(self, module: str) -> list[int]:
        """The ids of the rows of ``module`` that were trained alone; raises `MalformedCheckpoint`."""
        found = self.settings.get("trainable_token_indices")
        if isinstance(found, dict):
            found = next((ids for name, ids in found.items() if module.endswith(name)), None)
        if not isinstance(found, list) or not all(type(id) is int and id >= 0 for id in found):
            raise MalformedCheckpoint(
                f"{self.folder / CONFIG_NAME}: trainable_token_indices of {module} are {str(found)[:200]}; "
                "a list of ids was expected.",
                hint=AGAIN,
            )
        return found

    def rank(self, module: str, found: int) -> Any:
        """The rank that ``module`` should have; ``found`` where none is given."""
        return self._by_pattern("rank_pattern", module, self.settings.get("r", found))

    def scale(self, module: str, rank: int) -> float:
        """alpha / r, or alpha / sqrt(r) with rsLoRA; alpha by module where there is a pattern."""
        alpha = self._by_pattern("alpha_pattern", module, self.settings.get("lora_alpha", 8))
        if isinstance(alpha, bool) or not isinstance(alpha, int | float) or not abs(alpha) < 1e9:
            raise MalformedCheckpoint(
                f"{self.folder / CONFIG_NAME}: alpha of {module} is {alpha!r}; a number was expected.", hint=AGAIN
            )
        return float(alpha) / (math.sqrt(rank) if self.settings.get("use_rslora") else rank)

    def _names(self, key: str) -> list[str]:
        found = self.settings.get(key) or []
        if not isinstance(found, list) or not all(isinstance(name, str) for name in found):
            raise MalformedCheckpoint(
                f"{self.folder / CONFIG_NAME}: {key} is {str(found)[:200]}; a list of names was expected.", hint=AGAIN
            )
        return found

    def _by_pattern(self, key: str, module: str, default: Any) -> Any:
        """peft's rule: the first pattern (a regular expression) that matches the end of a module's name, at a dot."""
        patterns = self.settings.get(key) or {}
        if not isinstance(patterns, dict):
            raise MalformedCheckpoint(f"{self.folder / CONFIG_NAME}: {key} is not an object.", hint=AGAIN)
        if len(patterns) > MAX_PATTERNS:
            raise UnsupportedCheckpoint(
                f"{self.folder / CONFIG_NAME}: {key} holds {len(patterns)} patterns.",
                hint=f"At most {MAX_PATTERNS} are read.",
            )
        try:
            return next((value for text, value in patterns.items() if Pattern(text).at_end_of(module)), default)
        except InvalidConfig as error:
            kind = UnsupportedCheckpoint if isinstance(error, UnsupportedPattern) else MalformedCheckpoint
            raise kind(f"{self.folder / CONFIG_NAME}: {key}: {error.message}", hint=error.hint or AGAIN) from None


def read_adapter_config(file: Path) -> AdapterConfig:
    """Read ``adapter_config.json``; raises `UnsupportedCheckpoint` for what cannot be applied to a base's tensors."""
    config = AdapterConfig(file.parent, read_json(file))
    settings = config.settings
    kind, start = settings.get("peft_type", "LORA"), str(settings.get("init_lora_weights", "")).lower()
    lost = next((why for name, why in _LOST_STARTS.items() if start.startswith(name)), None)
    used = [key for key in _UNSUPPORTED if settings.get(key)]
    if kind != "LORA":
        reason = f"its peft_type is {kind!r}"
    elif used:
        reason = f"it uses {', '.join(used)}"
    elif config.start == "olora" and config.turned:
        reason = "its start 'olora' was made of layers that store their transpose, which peft cannot load either"
    elif lost:
        raise UnsupportedCheckpoint(
            f"{file.parent} cannot be applied to its base: its start {settings['init_lora_weights']!r} changed the "
            f"base too, by {lost}.",
            hint=_CONVERT,
        )
    else:
        _require_values(file, settings)
        return config
    raise UnsupportedCheckpoint(f"{file.parent} is not a LoRA adapter that can be applied: {reason}.", hint=MERGE_IT)


def _require_values(file: Path, settings: Mapping[str, Any]) -> None:
    for key, values in _VALUES.items():
        found = settings.get(key)
        if found is not None and found not in values:
            expected = " or ".join(json.dumps(value) for value in values)
            raise MalformedCheckpoint(f"{file}: {key} is {str(found)[:200]!r}; {expected} was expected.", hint=AGAIN)
