"""Kernels where no cache can be written."""

import os
import subprocess
import sys
import warnings
from pathlib import Path

import numba
import pytest

from kinship.cache import cache_folder
from kinship.compiled import kernel
from kinship.errors import InvalidConfig
from kinship.temporary import can_be_written, provide_caches, stand_in

PROGRAM = """
import warnings
warnings.simplefilter("always")
from numba.core import caching
refuse = classmethod(lambda cls, function, file: None)
for locator in (caching.InTreeCacheLocator, caching.UserWideCacheLocator):
    locator.from_function = refuse
if FULL:
    def full(*_): raise OSError(28, "No space left on device")
    caching.IndexDataCacheFile.save = full
from kinship.compiled import kernel
import program
print(program.twice(21), len(program.twice._cache.cache_path) > 0)
"""


@pytest.mark.parametrize("full", [False, True])
def test_kernels_run_where_no_cache_can_be_written(tmp_path: Path, full: bool) -> None:
    source = "from kinship.compiled import kernel\n\n@kernel()\ndef twice(x):\n    return 2 * x\n"
    (tmp_path / "program.py").write_text(source)
    paths = os.pathsep.join([str(tmp_path), str(Path(__file__).parents[2])])
    given = {key: value for key, value in os.environ.items() if key != "NUMBA_CACHE_DIR"}
    outcome = subprocess.run(
        [sys.executable, "-c", PROGRAM.replace("FULL", str(full))],
        env=given | {"PYTHONPATH": paths, "TMPDIR": str(tmp_path)}, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert outcome.stdout == "42 True\n"
    assert outcome.stderr.count("KinshipWarning: ") == 1 + full
    kept = list(tmp_path.glob(f"kinship-kernels-{os.getuid()}/*/*.nbi"))
    assert bool(kept) is not full


def test_a_stand_in_is_this_users_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    folder = stand_in("x")
    assert folder.stat().st_mode & 0o777 == 0o700
    assert stand_in("x") == folder
    folder.chmod(0o777)
    assert stand_in("x") != folder
    (tmp_path / f"kinship-y-{os.getuid()}").symlink_to(folder)
    assert not stand_in("y").is_symlink()


def test_caches_of_libraries_get_a_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    (tmp_path / "file").touch()
    for name in ("HF_HOME", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("GIVEN", "/kept")
    for name in ("GOOD", "BAD", "NOBODY"):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    places = {"GIVEN": f"{tmp_path}/file/x", "GOOD": f"{tmp_path}/new/x", "BAD": f"{tmp_path}/file/x", "NOBODY": "~x/y"}
    provide_caches(places)
    assert os.environ["GIVEN"] == "/kept"
    assert "GOOD" not in os.environ
    assert all(can_be_written(Path(os.environ[name])) for name in ("BAD", "NOBODY"))


def test_no_home_is_no_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(*_: object) -> None:
        raise KeyError("uid not found")

    for name in ("HOME", "XDG_CACHE_HOME", "KINSHIP_CACHE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("pwd.getpwuid", unknown)
    with warnings.catch_warnings(action="error"):
        assert cache_folder() is None


def test_kernels_are_not_run_uncompiled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(numba.config, "DISABLE_JIT", 1)
    with pytest.raises(InvalidConfig, match="NUMBA_DISABLE_JIT is set"):
        kernel()(abs)
