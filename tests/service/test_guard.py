"""Whatever happens, a command ends in one line or one JSON object, and an exit code that tells."""

import json
import os
import re
import signal
import subprocess
import sys
import warnings
import weakref
from collections.abc import Callable
from pathlib import Path

import pytest
import typer

from kinship.errors import InvalidConfig, KinshipWarning
from service.answers import Error
from service.guard import guarded
from tests.service.conftest import Kinship

Guard = Callable[..., tuple[int, str, str]]


@pytest.fixture
def guard(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], tmp_path: Path) -> Guard:
    """Run a function under the guard; returns the exit code and both outputs."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))

    def run(command: Callable[[], object], *words: str) -> tuple[int, str, str]:
        monkeypatch.setattr("sys.argv", ["kinship", *words])
        code = guarded(command)
        return code, *capfd.readouterr()

    return run


def raising(error: BaseException) -> Callable[[], None]:
    def command() -> None:
        raise error

    return command


REFUSED = [
    (InvalidConfig("No.", hint="Yes."), 1, "invalid_config"),
    (PermissionError(13, "Permission denied", "/somewhere"), 1, "system_refused"),
    (OSError(28, "No space left on device"), 1, "output_not_writable"),
    (MemoryError(), 1, "system_refused"),
    (ImportError("Read this.\n\nOriginal error was: libblas.so: failed to map segment"), 1, "system_refused"),
    (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"), 1, "system_refused"),
    (RuntimeError("can't start new thread"), 1, "system_refused"),
    (BlockingIOError(11, "Resource temporarily unavailable"), 1, "system_refused"),
    (typer.BadParameter("no number"), 2, "invalid_config"),
    (ZeroDivisionError("division by zero"), 70, "internal_error"),
    (RecursionError(), 70, "internal_error"),
    (OSError("something"), 70, "internal_error"),
]


@pytest.mark.parametrize(("error", "code", "name"), REFUSED, ids=lambda value: type(value).__name__)
def test_everything_raised_is_one_error(guard: Guard, error: Exception, code: int, name: str) -> None:
    found, out, err = guard(raising(error), "--json")
    assert found == code
    assert Error.model_validate_json(out).code == name
    assert err == ""
    found, out, err = guard(raising(error))
    assert (found, out) == (code, "")
    assert len(err.splitlines()) <= 2
    assert "Traceback" not in err


def test_memory_that_lacks_is_told_whatever_a_library_makes_of_it(guard: Guard) -> None:
    def command() -> None:
        try:
            raise OSError("libllvmlite.so: failed to map segment from shared object")
        except OSError:
            raise OSError("Could not find/load shared object file")  # noqa: B904 as llvmlite does

    code, _, err = guard(command)
    assert (code, err.splitlines()[0]) == (1, "Error: There is not enough memory.")


def test_a_name_is_no_shortage(guard: Guard) -> None:
    _, _, err = guard(raising(FileNotFoundError(2, "No such file or directory", "out of memory")))
    assert err.startswith("Error: out of memory: No such file")


def test_there_may_be_no_memory_to_tell_that_there_is_none(guard: Guard, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise MemoryError

    monkeypatch.setattr("service.console.print_error", refuse)
    code, out, err = guard(raising(MemoryError()))
    assert (code, out, err.splitlines()[0]) == (1, "", "Error: There is not enough memory.")
    code, out, err = guard(raising(ZeroDivisionError()), "--json")
    assert (code, Error.model_validate_json(out).code, err) == (1, "system_refused", "")


def test_what_libraries_cannot_do_at_the_end_is_no_further_error(tmp_path: Path) -> None:
    (tmp_path / "lacking.py").write_text(
        "import atexit, sys\nfrom service.guard import guarded\n\ndef command():\n    raise MemoryError\n\n"
        "atexit.register(lambda: [][0])\nsys.exit(guarded(command))\n"
    )
    ended = shell(f"{sys.executable} lacking.py", tmp_path)
    assert ended.returncode == 1
    assert [line.split(":")[0] for line in ended.stderr.splitlines()] == ["Error", "Next"]


def test_what_a_failed_command_held_is_free_for_the_telling(guard: Guard) -> None:
    held = []

    def command() -> None:
        class Large:
            pass

        large = Large()
        held.append(weakref.ref(large))
        raise MemoryError

    def told() -> None:
        try:
            command()
        except MemoryError as error:
            held.append(error)
            raise

    assert guard(told)[0] == 1
    assert held[0]() is None


def test_a_fault_leaves_a_report_without_secrets(guard: Guard, tmp_path: Path) -> None:
    words = ("runs", "list", "postgresql://ann:hunter2@db/x", "--set", "token=abcdef", "hf_QWERTY")
    code, _, err = guard(raising(ValueError("at postgresql://ann:hunter2@db/x\nand more")), *words)
    (report,) = tmp_path.glob("kinship-fault-*.txt")
    text = report.read_text()
    assert code == 70
    assert str(report) in err
    assert report.stat().st_mode & 0o077 == 0
    for part in ("kinship runs list postgresql://...@db/x", "ValueError", "test_guard.py", "numpy: "):
        assert part in text
    assert not re.search("hunter2|abcdef|QWERTY", text + err)


def test_a_fault_is_told_where_no_report_can_be_written(guard: Guard, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(**_: object) -> None:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr("tempfile.mkstemp", refuse)
    code, _, err = guard(raising(ZeroDivisionError()))
    assert code == 70
    assert "test_guard.py, line" in err


def test_an_interrupt_that_a_library_made_another_error_of_is_one(guard: Guard) -> None:
    def command() -> None:
        try:
            signal.raise_signal(signal.SIGINT)
        except KeyboardInterrupt:
            raise ImportError("initialisation failed") from None

    assert guard(command) == (130, "", "Stopped.\n")
    assert guard(raising(KeyboardInterrupt())) == (130, "", "Stopped.\n")
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


@pytest.mark.parametrize("value", ["0", "abc", "-1"])
def test_a_number_of_threads_that_is_none_is_told(guard: Guard, monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv("NUMBA_NUM_THREADS", value)
    code, _, err = guard(lambda: None)
    assert code == 1
    assert err.startswith(f"Error: NUMBA_NUM_THREADS is {value!r}")


def test_warnings_of_ours_are_notes(guard: Guard) -> None:
    def command() -> None:
        warnings.warn("The cache was made anew.", KinshipWarning, stacklevel=1)

    with warnings.catch_warnings():
        warnings.simplefilter("always")
        assert guard(command) == (0, "", "Note: The cache was made anew.\n")


def test_usage_is_an_error_too(kinship: Kinship) -> None:
    for words in (["matrix", "--json"], ["nosuch", "--json"], ["score", "a", "--limit", "x", "--json"]):
        outcome = kinship(*words)
        assert outcome.code == 2
        assert Error.model_validate_json(outcome.out).hint == "See --help."
    assert "Usage:" in kinship("matrix").err


def shell(script: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """``kinship`` in a shell, as ``$K``."""
    given = os.environ | {"K": f"{sys.executable} -m service.cli", "PYTHONPATH": str(Path(__file__).parents[2])}
    return subprocess.run(["bash", "-c", script], capture_output=True, text=True, cwd=folder, env=given, check=False)


def test_streams_that_are_closed_or_full(tmp_path: Path) -> None:
    script = """
        $K --help > /dev/full; echo $? >> codes
        $K nosuch --json > /dev/full; echo $? >> codes
        $K --help >&-; echo $? >> codes
        $K --help <&- >&- 2>&-; echo $? >> codes
        $K nosuch 2> /dev/full; echo $? >> codes
        mkdir gone; cd gone; rmdir ../gone; $K methods --json; echo $? >> ../codes
    """
    outcome = shell(script, tmp_path)
    assert (tmp_path / "codes").read_text().split() == ["1", "2", "0", "0", "1", "1"]
    assert "Traceback" not in outcome.stderr
    assert outcome.stderr.count("No space left on device") == 2
    assert "no more" in json.loads(outcome.stdout)["message"]
    assert "Exception ignored" not in outcome.stderr


def test_pictures_need_no_backend_that_shows_them(guard: Guard, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MPLBACKEND", "nonsense")
    found: list[str] = []
    assert guard(lambda: found.append(os.environ["MPLBACKEND"])) == (0, "", "")
    assert found == ["agg"]
