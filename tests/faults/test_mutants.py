"""Damaged inputs of every kind: each is read as a typed error or as what it says, within 10 s and 500 MB.

A mutant is a sound file with a few random changes: bits flipped, parts cut, doubled or swapped, and values put in that
have broken readers before. `make soak` tries 10,000 of them in this process, every hundredth in one of its own, too.
"""

import json
import os
import random
import resource
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryFile
from typing import NamedTuple

import pytest
import yaml
from safetensors import SafetensorError, safe_open

from kinship.checkpoints.architecture import architecture_of
from kinship.checkpoints.header import read_header
from kinship.checkpoints.opening import open_checkpoint
from kinship.errors import KinshipError
from kinship.trees.recorded import recorded_tree
from merging.recipe.schema import load_recipe
from search.config import load_config
from tests.conftest import MakeModel

NASTY = [
    b"-1", b"1e999", b"NaN", b"null", b"[]", b"{}", b'""', b"true", b"9" * 5000, b"1000000000000", b"\xff\xfe", b"\0",
    b"[" * 5000, b'{"a":' * 500, b"&a [*a]", b"*a", b"<<: ", b"!!python/name:os.system ", b"\n---\n", b"0x10", b".inf",
    b"(a|(a))" * 40, b"(?=a)", b"\\ud800", b"\xc2\x85", b"- " * 3000, b"? ", b"no", b"010",
]  # fmt: skip

CONFIG = {
    "model_type": "llama", "architectures": ["LlamaForCausalLM"], "vocab_size": 11, "hidden_size": 8,
    "intermediate_size": 80, "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 2,
    "max_position_embeddings": 64, "rope_theta": 10000.0, "tie_word_embeddings": True, "dtype": "float32",
    "bos_token_id": 0, "eos_token_id": [1, 2],
}  # fmt: skip


@pytest.fixture(autouse=True)
def hanging() -> Iterator[None]:
    def end(number: int, frame: object) -> None:
        raise TimeoutError("it hangs")

    before = signal.signal(signal.SIGALRM, end)
    yield
    signal.signal(signal.SIGALRM, before)


def mutant(content: bytes, chance: random.Random) -> bytes:
    found = bytearray(content)
    for _ in range(chance.randint(1, 4)):
        place = chance.randrange(len(found) + 1)
        end = min(len(found), place + chance.randint(1, 12))
        match chance.randrange(5):
            case 0:
                found[place:end] = bytes(byte ^ (1 << chance.randrange(8)) for byte in found[place:end])
            case 1:
                del found[place:end]
            case 2:
                found[place:place] = found[place:end] * chance.randint(1, 50)
            case 3:
                found[place:end] = chance.choice(NASTY)
            case _:  # a value, whole
                numbers = [index for index, byte in enumerate(found) if chr(byte).isdigit()] or [0]
                place = chance.choice(numbers)
                found[place : place + 1] = chance.choice(NASTY)
    return bytes(found)


def read_weights(file: Path) -> None:
    """What is believed of a header is what the safetensors library believes."""
    found = read_header(file)
    try:
        with safe_open(file, "np") as other:
            shapes = {name: tuple(other.get_slice(name).get_shape()) for name in other.keys()}  # noqa: SIM118
    except SafetensorError:
        shapes = {}
    assert not shapes or shapes == {name: entry.shape for name, entry in found.items()}


def read_config(file: Path) -> None:
    with open_checkpoint(file.parent) as model:
        architecture_of(model)


def read_adapter(file: Path) -> None:
    with open_checkpoint(f"{file.parents[1] / 'base'}+{file.parent}") as model:
        for name in model.tensors:
            model.floats(name, 0, 1)


def read_card(file: Path) -> None:
    recorded_tree([str(file.parent)])


READERS: dict[str, Callable[[Path], object]] = {
    "header": read_weights,
    "config": read_config,
    "adapter": read_adapter,
    "card": read_card,
    "recorded recipe": read_card,
    "recipe": load_recipe,
    "run file": load_config,
}


def read(kind: str, file: Path) -> None:
    with suppress(KinshipError):
        READERS[kind](file)


class Cost(NamedTuple):
    """Of a process: its CPU seconds, and its memory at most in kB."""

    seconds: float
    memory: int


def cost_apart(kind: str, file: Path) -> Cost:
    """Read ``file`` in a process of its own."""
    code = "import sys, pathlib, tests.faults.test_mutants as own; own.read(sys.argv[1], pathlib.Path(sys.argv[2]))"
    with TemporaryFile() as told:
        root = Path(__file__).parents[2]
        process = subprocess.Popen([sys.executable, "-c", code, kind, str(file)], cwd=root, stderr=told)
        try:
            _, status, usage = os.wait4(process.pid, 0)
        except BaseException:
            process.kill()
            raise
        process.returncode = os.waitstatus_to_exitcode(status)
        told.seek(0)
        assert process.returncode == 0, told.read().decode()
    return Cost(usage.ru_utime + usage.ru_stime, usage.ru_maxrss)


@pytest.fixture
def sound(make_model: MakeModel, tmp_path: Path) -> dict[str, Path]:
    """A file of every kind of input."""
    base, other = make_model("base"), make_model("other", 1)
    adapter = tmp_path / "adapter"
    adapter.mkdir()
    make_adapter(adapter, base)
    (other / "config.json").write_text(json.dumps(CONFIG, indent=1))
    recipe = {"merge_method": "ties", "base_model": "b", "models": [{"model": "a", "parameters": {"density": 0.5}}]}
    run = {"base": "b", "founders": ["a", "c"], "evaluate": {"tasks": ["x"], "limit": 4}, "stop": {"generations": 2}}
    card = {"base_model": ["a", "b"], "license": "mit", "tags": ["merge"]}
    texts = {
        "recipe.yml": yaml.safe_dump(recipe), "run.yml": yaml.safe_dump(run),
        "other/README.md": f"---\n{yaml.safe_dump(card)}---\n\n# other\n", 
        "other/mergekit_config.yml": yaml.safe_dump(recipe),
    }  # fmt: skip
    for name, text in texts.items():
        (tmp_path / name).write_text(text)
    return {
        "header": base / "model.safetensors",
        "config": other / "config.json",
        "adapter": adapter / "adapter_config.json",
        "card": other / "README.md",
        "recorded recipe": other / "mergekit_config.yml",
        "recipe": tmp_path / "recipe.yml",
        "run file": tmp_path / "run.yml",
    }


def make_adapter(folder: Path, base: Path) -> None:
    import torch
    from safetensors.torch import save_file

    with open_checkpoint(base) as model:
        name = next(name for name, entry in model.tensors.items() if "q_proj.weight" in name)
        rows, columns = model.tensors[name].shape
    module = f"base_model.model.{name.removesuffix('.weight')}"
    save_file(
        {f"{module}.lora_A.weight": torch.ones(2, columns), f"{module}.lora_B.weight": torch.ones(rows, 2)},
        folder / "adapter_model.safetensors",
    )
    config = {"peft_type": "LORA", "r": 2, "lora_alpha": 4, "target_modules": ["q_proj"], "rank_pattern": {"q_proj": 2}}
    (folder / "adapter_config.json").write_text(json.dumps(config | {"alpha_pattern": {r".*q_proj": 8}}))


def check(sound: dict[str, Path], count: int, *, apart: bool = False) -> None:
    for kind, file in sound.items():
        READERS[kind](file)  # the sound one, and whatever is imported for it
        whole = file.read_bytes()
        head = 8 + int.from_bytes(whole[:8], "little") if kind == "header" else len(whole)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        calm = cost_apart(kind, file) if apart else None
        for number in range(count // len(sound)):
            file.write_bytes(mutant(whole[:head], random.Random(f"{kind} {number}")) + whole[head:])
            signal.alarm(10)  # one that hangs ends in a traceback that says where
            try:
                read(kind, file)
            except Exception as error:
                raise AssertionError(f"mutant {number} of a {kind}: {type(error).__name__}: {error}") from error
            finally:
                signal.alarm(0)
            if calm is not None and number % 100 == 0:
                found = cost_apart(kind, file)
                assert found.seconds < calm.seconds + 10, f"mutant {number} of a {kind}"
                assert found.memory < calm.memory + 500_000, f"mutant {number} of a {kind}"
        file.write_bytes(whole)
        assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 500_000, kind


def test_some_mutants_are_typed_errors_or_right(sound: dict[str, Path]) -> None:
    check(sound, 154)


@pytest.mark.soak
def test_mutants_are_typed_errors_or_right(sound: dict[str, Path]) -> None:
    check(sound, 10_000, apart=True)
