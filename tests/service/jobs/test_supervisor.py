"""Jobs end as they would have, whatever is killed; none runs twice at once, none stays "running"."""

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select

from service.answers.matrix import measure_matrix
from service.jobs import liveness, supervisor
from service.jobs.errors import Conflict
from service.jobs.supervisor import Supervisor
from service.jobs.table import JobRow, SlotRow
from tests.service.jobs.conftest import BOTH, Scene, wait_for


def process_of(scene: Scene, id: int) -> int | None:
    """The id of the job's process, once it has signed."""
    try:
        return int(json.loads((scene.board.place(id) / liveness.PROCESS).read_text())["pid"])
    except (OSError, ValueError):
        return None


def kill_job(scene: Scene, id: int, start: int) -> None:
    """SIGKILL the process of the so manyth start."""
    wait_for(lambda: scene.job(id).starts == start and process_of(scene, id))
    pid = process_of(scene, id)
    assert pid is not None
    os.kill(pid, signal.SIGKILL)


def calm(scene: Scene) -> dict[str, Any]:
    models = [str(scene.folder / name) for name in ("one", "two")]
    return measure_matrix(models, str(scene.folder / "base")).content()


@pytest.mark.parametrize("killed", ["server", "job", "both"])
def test_what_is_killed_twice_ends_as_if_it_had_not_been(scene: Scene, killed: str) -> None:
    scene.servers.start()
    id = scene.submit()
    for turn in (1, 2):
        if killed == "server":
            wait_for(lambda: process_of(scene, id))
            scene.servers.kill()
            assert liveness.is_alive(scene.board.place(id)) or scene.board.place(id).joinpath("result").is_dir()
            scene.servers.start()
        elif killed == "job":
            kill_job(scene, id, turn)
        else:
            wait_for(lambda turn=turn: scene.job(id).starts == turn and process_of(scene, id))
            scene.servers.kill()
            kill_job(scene, id, turn)
            wait_for(lambda: not liveness.is_alive(scene.board.place(id)))
            scene.servers.start()
    wait_for(lambda: scene.job(id).state == "done")
    assert scene.job(id).starts == (1 if killed == "server" else 3)
    found, expected = json.loads(scene.board.result(id)), calm(scene)
    assert (found["ids"], found["base"]) == (["one", "two"], "base")
    assert found["values"] == expected["values"]
    with scene.board.session() as session:
        assert not [slot for slot in session.scalars(select(SlotRow)) if slot.job is not None]


def test_one_whose_process_is_always_lost_fails_with_the_end_of_its_log(scene: Scene) -> None:
    scene.servers.most_starts = 2
    scene.servers.start()
    id = scene.submit()
    (scene.board.place(id) / "log").write_text("it said this before\n")
    kill_job(scene, id, 1)
    kill_job(scene, id, 2)
    wait_for(lambda: scene.job(id).state == "failed")
    job = scene.job(id)
    assert job.starts == 2
    assert "lost 2 times" in str(job.error)
    assert "it said this before" in str(job.error)


def test_one_that_fails_says_why_and_one_that_is_cancelled_ends(scene: Scene) -> None:
    with Supervisor(scene.board, ("cpu", "cpu")):
        wrong = scene.board.submit("matrix", "", ["matrix", "--base=base", "--json", "--", "nowhere"]).id
        ended = scene.board.submit("matrix", "", ["matrix", "--base=base", "--json", "--", "one", "two"]).id
        wait_for(lambda: process_of(scene, ended))
        assert scene.board.cancel(ended).state == "cancelling"
        wait_for(lambda: scene.job(ended).state in {"cancelled", "done"})
        wait_for(lambda: scene.job(wrong).state == "failed")
    assert "nowhere" in str(scene.job(wrong).error)
    assert scene.job(wrong).hint
    assert scene.board.log(wrong).over
    assert not liveness.is_alive(scene.board.place(ended))


STUBBORN = """
import json, os, signal, sys, time
for number in (signal.SIGINT, signal.SIGTERM):
    signal.signal(number, signal.SIG_IGN)
pid = os.getpid()
began = open(f"/proc/{pid}/stat").read().rpartition(")")[2].split()[19]
if os.fork() == 0:
    time.sleep(600)
open(sys.argv[1], "w").write(json.dumps({"pid": pid, "began": began}))
time.sleep(600)
"""


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="its own start is read from /proc")
def test_one_that_will_not_end_is_killed_with_all_its_group(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    groups: list[int] = []

    def launch(self: Supervisor, row: JobRow, folder: Path, lock: int) -> "subprocess.Popen[bytes]":
        arguments = [sys.executable, "-S", "-c", STUBBORN, str(folder / liveness.PROCESS)]
        process = subprocess.Popen(arguments, pass_fds=(lock,), start_new_session=True)
        groups.append(process.pid)
        return process

    monkeypatch.setattr(Supervisor, "_launch", launch)
    monkeypatch.setattr(supervisor, "PATIENCE", 0.3)
    with Supervisor(scene.board, ("cpu",)):
        id = scene.submit()
        wait_for(lambda: process_of(scene, id))
        scene.board.cancel(id)
        wait_for(lambda: scene.job(id).state == "cancelled")
    assert groups
    assert not liveness.is_alive(scene.board.place(id))  # which its child held as well as itself


def test_no_signal_reaches_a_process_that_has_the_number_now(tmp_path: Path) -> None:
    bystander = subprocess.Popen([sys.executable, "-S", "-c", "input()"], stdin=subprocess.PIPE, start_new_session=True)
    lock = liveness.take(tmp_path)
    assert lock is not None
    signed = {"pid": bystander.pid, "began": "1"}
    (tmp_path / liveness.PROCESS).write_text(json.dumps(signed))
    assert not liveness.send(tmp_path, signal.SIGKILL)
    signed["began"] = str(liveness.began(bystander.pid))
    os.close(lock)  # nobody holds the lock: it is no job's
    (tmp_path / liveness.PROCESS).write_text(json.dumps(signed))
    assert not liveness.send(tmp_path, signal.SIGKILL)
    assert bystander.poll() is None
    bystander.communicate(b"\n")


def test_the_lock_is_held_from_before_the_process_begins_until_it_ends(tmp_path: Path) -> None:
    lock = liveness.take(tmp_path)
    assert lock is not None
    assert liveness.take(tmp_path) is None
    process = subprocess.Popen([sys.executable, "-S", "-c", "input()"], stdin=subprocess.PIPE, pass_fds=(lock,))
    os.close(lock)
    assert liveness.is_alive(tmp_path)
    process.communicate(b"\n")
    assert not liveness.is_alive(tmp_path)


@pytest.mark.parametrize("scene", BOTH, indirect=True)
def test_one_whose_folder_is_gone_fails_and_keeps_nobody_else_waiting(scene: Scene) -> None:
    gone, other = scene.submit(), scene.board.submit("matrix", "", ["matrix"], device="cpu").id
    shutil.rmtree(scene.board.place(gone))
    with Supervisor(scene.board, ("cpu",)):
        wait_for(lambda: scene.job(gone).state == scene.job(other).state == "failed")
    assert "folder" in str(scene.job(gone).error)


@pytest.mark.parametrize("scene", BOTH, indirect=True)
def test_a_second_server_over_one_workspace_is_refused(scene: Scene) -> None:
    with Supervisor(scene.board, ("cpu",)), pytest.raises(Conflict, match="Another server"):
        Supervisor(scene.board, ("cpu",))
