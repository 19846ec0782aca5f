import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from evaluators.processes import finish, running, wait_for
from kinship.errors import EvaluationFailed


def python(code: str) -> list[str]:
    return [sys.executable, "-c", code]


def gone(pid: int) -> bool:
    """Ended, or ended and not yet fetched by the process that inherited it."""
    for _ in range(200):
        try:
            if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
                return True
        except (FileNotFoundError, ProcessLookupError):
            return True
        time.sleep(0.05)
    return False


def test_a_process_that_ends_well(tmp_path: Path) -> None:
    with running(python("print('hello')"), tmp_path / "log") as process:
        finish(process, "it", tmp_path / "log", 60)
    assert (tmp_path / "log").read_text() == "hello\n"


def test_a_failure_tells_what_was_said_last(tmp_path: Path) -> None:
    code = "for i in range(50): print('line', i)\nraise SystemExit(7)"
    with (
        running(python(code), tmp_path / "log") as process,
        pytest.raises(EvaluationFailed, match=r"it ended with code 7\. It said last:\nline 35\n(.|\n)*line 49$"),
    ):
        finish(process, "it", tmp_path / "log", 60)


def test_what_takes_too_long_is_killed_with_what_it_started(tmp_path: Path) -> None:
    code = (
        "import subprocess, sys, time\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'])\n"
        "print(child.pid, flush=True)\ntime.sleep(600)"
    )
    log = tmp_path / "log"
    with running(python(code), log) as process:
        while not log.read_text().strip():
            time.sleep(0.05)
        with pytest.raises(EvaluationFailed, match="longer than"):
            finish(process, "it", log, 0.1)
    assert process.returncode == -9
    assert gone(int(log.read_text()))


def test_a_program_that_is_not_there(tmp_path: Path) -> None:
    with (
        pytest.raises(EvaluationFailed, match="no-such-program cannot be started"),
        running(["no-such-program"], tmp_path / "log"),
    ):
        pass


def test_a_server_is_waited_for(tmp_path: Path) -> None:
    class NotFound(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_error(404)

        def log_message(self, *_: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), NotFound)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    with running(python("import time; time.sleep(600)"), tmp_path / "log") as process:
        wait_for(f"http://127.0.0.1:{server.server_port}/v1", process, tmp_path / "log", 60)
        server.shutdown()
        server.server_close()
        with pytest.raises(EvaluationFailed, match="did not answer"):
            wait_for(f"http://127.0.0.1:{server.server_port}/v1", process, tmp_path / "log", 0.3)


def test_a_server_that_ends_is_not_waited_for(tmp_path: Path) -> None:
    with (
        running(python("raise SystemExit('no memory')"), tmp_path / "log") as process,
        pytest.raises(EvaluationFailed, match=r"The server ended with code 1\. It said last:\nno memory"),
    ):
        wait_for("http://127.0.0.1:9/", process, tmp_path / "log", 60)
