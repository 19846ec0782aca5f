import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from kinship.checkpoints import header
from kinship.checkpoints.dtypes import NOT_COMPUTED
from kinship.checkpoints.header import read_header
from kinship.checkpoints.opening import open_checkpoint
from kinship.errors import MalformedCheckpoint, UnsupportedCheckpoint

Fields = dict[str, Any]


def packed(header: object, data: bytes = b"", length: int | None = None) -> bytes:
    raw = header if isinstance(header, bytes) else json.dumps(header).encode()
    return (len(raw) if length is None else length).to_bytes(8, "little") + raw + data


def entry(begin: int, end: int, shape: object = None, dtype: object = "F32") -> Fields:
    return {"dtype": dtype, "shape": [(end - begin) // 4] if shape is None else shape, "data_offsets": [begin, end]}


@pytest.fixture
def write(tmp_path: Path) -> Callable[[bytes], Path]:
    def write(content: bytes) -> Path:
        path = tmp_path / "model.safetensors"
        path.write_bytes(content)
        return path

    return write


def test_entries_agree_with_the_safetensors_library(tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(0)
    tensors = {
        "b.half": torch.randn(3, 5, generator=generator).half(),
        "a.single": torch.randn(7, generator=generator),
        "c.brain": torch.randn(2, 2, 2, generator=generator).bfloat16(),
        "d.scalar": torch.tensor(2.5, dtype=torch.float64),
        "e.integers": torch.arange(6).reshape(2, 3),
        "f.truths": torch.tensor([True, False, True]),
        "g.empty": torch.empty(0, 4),
        "h.eight": torch.tensor([0.5, -2.0]).to(torch.float8_e4m3fn),
    }
    path = tmp_path / "model.safetensors"
    save_file(tensors, path, metadata={"format": "pt"})

    with open_checkpoint(path) as checkpoint:
        assert set(checkpoint.tensors) == set(tensors)
        for name, want in load_file(path).items():
            got = checkpoint.tensor(name)
            assert (got.dtype, got.shape) == (want.dtype, want.shape)
            assert torch.equal(got.flatten().view(torch.uint8), want.flatten().view(torch.uint8))


GOOD = packed({"a": entry(0, 8), "b": entry(8, 12)}, bytes(12))


def test_the_well_formed_twin_of_the_malformed_files_is_read(write: Callable[[bytes], Path]) -> None:
    assert {name: found.shape for name, found in read_header(write(GOOD)).items()} == {"a": (2,), "b": (1,)}


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        pytest.param(b"", "shorter than the 8 bytes", id="empty file"),
        pytest.param(b"\x02\0\0", "shorter than the 8 bytes", id="short file"),
        pytest.param(packed({"a": entry(0, 8)}, length=10**6), "header claims 1000000 bytes", id="lying length"),
        pytest.param(packed(b"", length=2**64 - 1), "header claims", id="length of 2^64-1"),
        pytest.param(GOOD[:-1], "beyond the file", id="cut short"),
        pytest.param(GOOD + b"\0", "tensors end at byte", id="bytes after the last tensor"),
        pytest.param(packed(b"{'a': 1}"), "is not JSON", id="not JSON"),
        pytest.param(packed(b"\xff\xfe\xfd"), "is not JSON", id="not text"),
        pytest.param(packed(b"[" * 100_000), "is not JSON", id="nested without end"),
        pytest.param(packed([1, 2]), "not a JSON object", id="a list"),
        pytest.param(packed({"a": entry(0, 8), "b": entry(4, 12)}, bytes(12)), "overlap", id="overlap"),
        pytest.param(packed({"a": entry(0, 8), "b": entry(0, 8)}, bytes(8)), "overlap", id="same bytes twice"),
        pytest.param(packed({"a": entry(0, 4), "b": entry(8, 12)}, bytes(12)), "gap", id="gap"),
        pytest.param(packed({"a": entry(4, 12)}, bytes(12)), "gap", id="gap at the start"),
        pytest.param(packed({"a": entry(0, 4000)}, bytes(8)), "beyond the file", id="beyond the file"),
        pytest.param(packed({"a": entry(8, 0, shape=[2])}, bytes(8)), "claims bytes", id="ends before it begins"),
        pytest.param(packed({"a": entry(-4, 4, shape=[2])}, bytes(8)), "claims bytes", id="negative offset"),
        pytest.param(packed({"a": entry(0, 8, shape=[-2])}, bytes(8)), "impossible shape", id="negative shape"),
        pytest.param(packed({"a": entry(0, 8, shape=[2.0])}, bytes(8)), "impossible shape", id="fractional shape"),
        pytest.param(packed({"a": entry(0, 4, shape=[True])}, bytes(4)), "impossible shape", id="boolean shape"),
        pytest.param(packed({"a": entry(0, 8, shape="2")}, bytes(8)), "impossible shape", id="shape is text"),
        pytest.param(packed({"a": entry(0, 8, shape=[3])}, bytes(8)), "needs 12 bytes, has 8", id="shape too large"),
        pytest.param(packed({"a": entry(0, 0, [2**62] * 3 + [0])}), "impossible shape", id="overflowing shape"),
        pytest.param(packed({"a": entry(0, 8, dtype="F31")}, bytes(8)), "unknown dtype 'F31'", id="unknown dtype"),
        pytest.param(packed({"a": entry(0, 8, dtype=["F32"])}, bytes(8)), "unknown dtype", id="dtype is a list"),
        pytest.param(packed({"a": {"dtype": "F32"}}), "lacks dtype, shape or data_offsets", id="keys missing"),
        pytest.param(packed({"a": None}), "lacks dtype, shape or data_offsets", id="entry is null"),
        pytest.param(packed({"a": entry(0, 8) | {"data_offsets": [0]}}, bytes(8)), "lacks", id="one offset"),
    ],
)
def test_malformed_file_is_refused_with_its_reason(write: Callable[[bytes], Path], content: bytes, reason: str) -> None:
    path = write(content)
    with pytest.raises(MalformedCheckpoint) as refusal:
        read_header(path)
    assert str(path) in refusal.value.message
    assert reason in refusal.value.message
    assert refusal.value.hint


def read_whole(path: Path) -> dict[str, torch.Tensor] | None:
    """Every tensor, or None where the file was refused in one of the two permitted ways."""
    try:
        with open_checkpoint(path) as checkpoint:
            return {name: checkpoint.tensor(name) for name in checkpoint.tensors}
    except (MalformedCheckpoint, UnsupportedCheckpoint):
        return None


REAL = packed(
    {"__metadata__": {"format": "pt"}, "a": entry(0, 16, [2, 2]), "b": entry(16, 20, [2], "BF16"), "c": entry(20, 24)},
    bytes(range(24)),
)
HEADER_END = len(REAL) - 24


@given(
    edits=st.lists(
        st.tuples(st.integers(0, HEADER_END - 1), st.sampled_from(["put", "insert", "delete"]), st.binary(max_size=3)),
        min_size=1,
        max_size=4,
    )
)
@settings(deadline=None, max_examples=150)
def test_mutated_header_bytes_are_refused_or_read(
    tmp_path_factory: pytest.TempPathFactory, edits: list[tuple[int, str, bytes]]
) -> None:
    content = bytearray(REAL)
    for place, kind, new in edits:
        content[place : place + {"put": len(new), "insert": 0, "delete": 1}[kind]] = b"" if kind == "delete" else new
    path = tmp_path_factory.getbasetemp() / "mutated.safetensors"
    path.write_bytes(content)
    tensors = read_whole(path)
    if tensors is not None:
        assert sum(tensor.nbytes for tensor in tensors.values()) <= len(content) - 8


NUMBERS = st.one_of(st.integers(-3, 30), st.sampled_from([2**31, 2**62, 2**63, 2**64, 10**400, 0.5, True]))
JSON = st.recursive(
    st.none() | NUMBERS | st.text(max_size=4) | st.sampled_from(["F32", "BF16", "U8", "BOOL"]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=5,
)
ENTRIES = st.fixed_dictionaries(
    {
        "dtype": st.sampled_from(["F32", "BF16", "U8", "BOOL", "F64"]) | JSON,
        "shape": st.lists(NUMBERS, max_size=3) | JSON,
        "data_offsets": st.lists(NUMBERS, min_size=2, max_size=2) | JSON,
    }
)


@given(header=st.dictionaries(st.text(max_size=3), ENTRIES | JSON, max_size=3), size=st.sampled_from([0, 4, 8, 24]))
@settings(deadline=None, max_examples=150)
def test_headers_of_any_json_are_refused_or_read(
    tmp_path_factory: pytest.TempPathFactory, header: Fields, size: int
) -> None:
    path = tmp_path_factory.getbasetemp() / "invented.safetensors"
    path.write_bytes(packed(header, bytes(size)))
    tensors = read_whole(path)
    if tensors is not None:
        assert sum(tensor.nbytes for tensor in tensors.values()) == size
        assert all(tuple(header[name]["shape"]) == tensor.shape for name, tensor in tensors.items())


def test_offsets_are_positions_in_the_file(write: Callable[[bytes], Path]) -> None:
    data = bytes(range(12))
    path = write(packed({"late": entry(8, 12), "early": entry(0, 8)}, data))
    for name, found in read_header(path).items():
        want = {"early": data[:8], "late": data[8:]}[name]
        assert path.read_bytes()[found.offset : found.offset + found.nbytes] == want
        assert found.count == math.prod(found.shape)


@pytest.mark.parametrize("dtype", sorted(NOT_COMPUTED))
def test_a_dtype_of_the_format_that_is_not_computed_with_is_told_as_such(
    write: Callable[[bytes], Path], dtype: str
) -> None:
    with pytest.raises(UnsupportedCheckpoint, match=f"as {dtype}, a dtype that is not computed with"):
        read_header(write(packed({"a": entry(0, 8, [4], dtype)}, bytes(8))))


def test_headers_that_no_model_has_are_refused_before_they_are_read(
    write: Callable[[bytes], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    large = tmp_path / "large.safetensors"
    with open(large, "wb") as file:
        file.write((header.MOST_HEADER_BYTES + 1).to_bytes(8, "little"))
        file.truncate(header.MOST_HEADER_BYTES + 100)  # takes no room on the disk
    with pytest.raises(UnsupportedCheckpoint, match="32,000,001 bytes of header; up to 32,000,000"):
        read_header(large)
    monkeypatch.setattr(header, "MOST_TENSORS", 2)
    content = {f"t{place}": entry(4 * place, 4 * place + 4) for place in range(3)}
    with pytest.raises(UnsupportedCheckpoint, match="3 tensors; up to 2"):
        read_header(write(packed(content, bytes(12))))


def test_tensors_called_like_the_fields_of_a_tensor(write: Callable[[bytes], Path]) -> None:
    content = {name: entry(4 * place, 4 * place + 4) for place, name in enumerate(("dtype", "shape", "data_offsets"))}
    assert list(read_header(write(packed(content, bytes(12))))) == ["dtype", "shape", "data_offsets"]


def test_a_file_that_is_no_safetensors_file_by_its_name_is_told_as_such(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    path.write_text('{"model_type": "llama"}')
    with pytest.raises(MalformedCheckpoint) as refusal:
        read_header(path)
    assert "give the model's folder" in refusal.value.hint
