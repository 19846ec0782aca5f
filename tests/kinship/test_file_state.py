import os
from collections.abc import Callable
from pathlib import Path

import pytest

from kinship.errors import InputsChanged
from kinship.file_state import VERIFY, FileState, require_unchanged, states_of

SIZE = 100_000


def write(file: Path, content: bytes) -> None:
    """Keep the file's date, as ``cp -p`` does."""
    before = file.stat()
    file.write_bytes(content)
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))


@pytest.fixture
def file(tmp_path: Path) -> Path:
    (tmp_path / "file").write_bytes(os.urandom(SIZE))
    return tmp_path / "file"


def test_equal_bytes_have_equal_contents_wherever_they_lie(file: Path) -> None:
    copy = file.with_name("copy")
    copy.write_bytes(file.read_bytes())
    one, other = FileState.of(file), FileState.of(copy)
    assert (one.size, one.content) == (other.size, other.content)
    assert one != other
    assert FileState.of(file) == one


@pytest.mark.parametrize("place", [0, SIZE - 1])
def test_a_byte_at_an_end_is_seen_in_the_content(file: Path, place: int) -> None:
    before, content = FileState.of(file), bytearray(file.read_bytes())
    content[place] ^= 1
    write(file, content)
    assert FileState.of(file).content != before.content


def test_other_bytes_of_the_same_size_and_date_are_seen_in_the_content(file: Path) -> None:
    before = FileState.of(file)
    write(file, os.urandom(SIZE))
    now = FileState.of(file)
    assert (now.size, now.modified, now.inode) == (before.size, before.modified, before.inode)
    assert now.content != before.content


def test_one_byte_that_no_sample_sees_is_seen_by_the_inode_and_by_hashing_all(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = bytearray(file.read_bytes())
    place = next(place for place in range(5000, SIZE) if _unseen(file, content, place))
    before = FileState.of(file)
    monkeypatch.setenv(VERIFY, "1")
    whole = FileState.of(file)
    content[place] ^= 1
    write(file, content)
    assert FileState.of(file).content != whole.content
    monkeypatch.delenv(VERIFY)
    now = FileState.of(file)
    assert now.content == before.content
    assert now.changed != before.changed


def _unseen(file: Path, content: bytearray, place: int) -> bool:
    before = FileState.of(file).content
    content[place] ^= 1
    file.write_bytes(content)
    seen = FileState.of(file).content != before
    content[place] ^= 1
    file.write_bytes(content)
    return not seen


@pytest.mark.parametrize(
    ("harm", "told"),
    [
        (lambda file: file.unlink(), "cannot be read any more"),
        (lambda file: os.truncate(file, 10), f"had {SIZE} bytes and has 10"),
        (lambda file: os.replace(_other(file), file), "was replaced"),
        (lambda file: write(file, os.urandom(SIZE)), "was written to"),
    ],
)
def test_what_changed_is_told(file: Path, harm: Callable[[Path], None], told: str) -> None:
    states = states_of([file])
    require_unchanged(states)
    harm(file)
    with pytest.raises(InputsChanged, match=f"{file} changed while it was in use: it {told}"):
        require_unchanged(states)


def _other(file: Path) -> Path:
    file.with_name("other").write_bytes(file.read_bytes())
    return file.with_name("other")
