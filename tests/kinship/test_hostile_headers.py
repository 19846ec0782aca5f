"""Thousands of mutated safetensors headers: each is refused with a typed error, or sound."""

import json
import random
from collections import Counter
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from kinship.checkpoints.header import read_header
from kinship.errors import KinshipError


def mutate(content: bytes, chance: random.Random) -> bytes:
    """A safetensors file changed in its length, header or end: as JSON that stays JSON, or as mere bytes."""
    return mutate_fields(content, chance) if chance.random() < 0.6 else mutate_bytes(content, chance)


def mutate_fields(content: bytes, chance: random.Random) -> bytes:
    """One or two changes of what the header says about its tensors; its length fits."""
    end = 8 + int.from_bytes(content[:8], "little")
    header = json.loads(content[8:end])
    names = [name for name in header if name != "__metadata__"]
    for _ in range(chance.randint(1, 2)):
        one, other = chance.sample(names, 2)
        numbers = header[one][chance.choice(["shape", "data_offsets"])] or [0]
        match chance.choice(["add", "set", "swap", "dimension", "dtype", "share", "drop", "lose", "rename"]):
            case "add":
                numbers[chance.randrange(len(numbers))] += chance.choice([-8, -4, -1, 1, 4, 8])
            case "set":
                numbers[chance.randrange(len(numbers))] = chance.choice([0, -1, 2**31, 2**63, 10**30, 0.5, True, None])
            case "swap":
                key = chance.choice(["shape", "dtype", "data_offsets"])
                header[one][key], header[other][key] = header[other][key], header[one][key]
            case "dimension":
                header[one]["shape"].insert(0, chance.choice([0, 1, 2, -2]))
            case "dtype":
                header[one]["dtype"] = chance.choice(["F64", "F32", "BF16", "I8", "F8_E4M3", "F4", 3])
            case "share":
                header[one]["data_offsets"] = list(header[other]["data_offsets"])
            case "drop":
                header[one] = {key: value for key, value in header[one].items() if chance.random() < 0.8}
                header[one] = {"dtype": "F32", "shape": [], "data_offsets": [0, 4]} | header[one]
            case "lose":
                header[one] = {"dtype": "U8", "shape": [0], "data_offsets": [24, 24]}
            case _:
                header = {
                    (chance.choice(["", "\0", "é", one]) if name == one else name): header[name] for name in header
                }
                names = [name for name in header if name != "__metadata__"]
    raw = json.dumps(header).encode()
    return len(raw).to_bytes(8, "little") + raw + content[end:]


def mutate_bytes(content: bytes, chance: random.Random) -> bytes:
    """One to four changes of bytes."""
    changed = bytearray(content)
    end = 8 + int.from_bytes(content[:8], "little")
    for _ in range(chance.randint(1, 4)):
        place = chance.randrange(end)
        match chance.choice(["bit", "byte", "insert", "delete", "digit", "copy", "truncate", "extend", "length"]):
            case "bit":
                changed[min(place, len(changed) - 1)] ^= 1 << chance.randrange(8)
            case "byte":
                changed[min(place, len(changed) - 1)] = chance.randrange(256)
            case "insert":
                changed[place:place] = chance.choice([b"0", b"9", b"-", b"[", b"}", b'"', b",", b"e9", b"null", b"\\u"])
            case "delete":
                del changed[place : place + chance.randint(1, 8)]
            case "digit":
                digits = [index for index in range(8, min(end, len(changed))) if 48 <= changed[index] <= 57]
                if digits:
                    changed[chance.choice(digits)] = chance.choice(b"0123456789")
            case "copy":
                changed[place:place] = changed[place : place + chance.randint(1, 60)]
            case "truncate":
                del changed[max(1, len(changed) - chance.randint(1, 40)) :]
            case "extend":
                changed += bytes(chance.randint(1, 40))
            case "length":
                changed[:8] = chance.choice([end - 8 + chance.randint(-9, 9), 2**31, 2**63, 0]).to_bytes(8, "little")
    return bytes(changed)


def outcomes(file: Path, count: int) -> Counter[str]:
    """What `read_header` makes of ``count`` seeded mutations: an error's type and reason, or sound entries."""
    tensors = {
        "one": torch.arange(6.0).reshape(2, 3),
        "two": torch.zeros(2, dtype=torch.bfloat16),
        "three": torch.arange(4, dtype=torch.uint8),
        "four": torch.tensor(1.0),
    }
    save_file(tensors, file, metadata={"format": "pt"})
    content, chance, counts = file.read_bytes(), random.Random(20), Counter[str]()
    for _ in range(count):
        file.write_bytes(mutate(content, chance))
        try:
            found = read_header(file)
        except KinshipError as error:
            reason = error.message.split("safetensors file: ")[-1]
            kinds = ["header claims", "not JSON", "lacks", "dtype", "shape", "beyond", "overlap", "end at", "not text"]
            counts[next(kind for kind in kinds if kind in reason)] += 1
            continue
        size, covered = file.stat().st_size, 0
        for name, tensor in found.items():
            assert tensor.name == name
            assert 8 <= tensor.offset <= tensor.offset + tensor.nbytes <= size
            assert tensor.nbytes == tensor.count * tensor.dtype.itemsize
            covered += tensor.nbytes
        assert covered == size - 8 - int.from_bytes(file.read_bytes()[:8], "little")
        counts["sound"] += 1
    print(f"{count} mutated headers: {dict(counts.most_common())}")
    return counts


def test_mutated_headers_are_refused_or_sound(tmp_path: Path) -> None:
    counts = outcomes(tmp_path / "mutated.safetensors", 300)
    assert counts.total() == 300
    assert len(counts) > 5


@pytest.mark.soak
def test_ten_thousand_mutated_headers_are_refused_or_sound(tmp_path: Path) -> None:
    counts = outcomes(tmp_path / "mutated.safetensors", 10_000)
    assert counts.total() == 10_000
    assert min(counts[kind] for kind in ("sound", "overlap", "beyond", "shape", "dtype", "header claims")) > 0
