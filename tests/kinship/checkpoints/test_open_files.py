"""Open files are few, however many readers there are."""

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from kinship.checkpoints.open_files import OpenFiles


@pytest.fixture
def paths(tmp_path: Path) -> list[Path]:
    found = [tmp_path / str(number) for number in range(40)]
    for path in found:
        path.write_text(path.name)
    return found


def opened(folder: Path) -> list[str]:
    """Names of the files of ``folder`` that this process holds open, as the system knows."""
    links = [f"/proc/self/fd/{number}" for number in os.listdir("/proc/self/fd")]
    targets = [Path(os.readlink(link)) for link in links if os.path.islink(link)]
    return sorted(target.name for target in targets if target.parent == folder)


def read(files: OpenFiles, path: Path, owner: object = None) -> str:
    with files.use(owner, path) as descriptor:
        return os.pread(descriptor, 10, 0).decode()


def test_the_one_unused_for_longest_is_closed(paths: list[Path], tmp_path: Path) -> None:
    files = OpenFiles(3)
    for number in (0, 1, 2, 0, 3):
        assert read(files, paths[number]) == str(number)
    assert opened(tmp_path) == ["0", "2", "3"]
    files.close(None)
    assert opened(tmp_path) == []


def test_a_file_in_use_stays_open(paths: list[Path], tmp_path: Path) -> None:
    files = OpenFiles(1)
    with files.use(None, paths[0]) as descriptor:
        assert read(files, paths[1]) == "1"
        assert os.pread(descriptor, 10, 0) == b"0"
    assert read(files, paths[2]) == "2"
    assert opened(tmp_path) == ["2"]


def test_owners_have_files_of_their_own(paths: list[Path]) -> None:
    files = OpenFiles(8)
    assert read(files, paths[0], "before") == "0"
    paths[1].replace(paths[0])
    assert read(files, paths[0], "before") == "0"
    assert read(files, paths[0], "after") == "1"
    files.close("before")
    assert len(files) == 1


def test_many_threads_read_what_they_asked_for(paths: list[Path], tmp_path: Path) -> None:
    files = OpenFiles(4)
    wanted = [paths[number * 7 % 40] for number in range(2000)]
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(lambda path: read(files, path), wanted)) == [path.name for path in wanted]
    assert [read(files, path) for path in paths] == [path.name for path in paths]
    assert opened(tmp_path) == sorted(path.name for path in paths[-4:])


def test_what_cannot_be_opened_takes_no_place(tmp_path: Path) -> None:
    files = OpenFiles(2)
    with pytest.raises(FileNotFoundError), files.use(None, tmp_path / "none"):
        pass
    assert len(files) == 0
