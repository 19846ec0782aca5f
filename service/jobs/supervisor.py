"""The supervisor: starts what waits, sees what ended, ends what is to end, and finds again what ran before it came.

A job's process is of a session of its own, so that the server's death does not reach it. What the supervisor knows of
it is on the disk: the lock says whether it lives, the folder how it ended.
"""

import json
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any, Self

from filelock import FileLock, Timeout
from sqlalchemy import Select, select, update
from sqlalchemy.orm import Session

from evaluators.workers.settings import thread_environment
from kinship.errors import KinshipError
from kinship.threads import worker_count
from search.comparison.store import arms_in
from search.ledger.ledger import Ledger
from search.ledger.location import LedgerLocation, holds_run, location_of
from search.ledger.records import RESULTS
from service.jobs import liveness
from service.jobs.board import PAUSED, WAITING, WORKING, Board
from service.jobs.errors import Conflict
from service.jobs.folder import ENDED, LOG, OUTPUT, PROGRESS, RESULT, attempt_folder
from service.jobs.table import JobRow, SlotRow, now, set_slots

log = logging.getLogger("kinship.service")

SECONDS = 0.5  # between two looks
MOST_SECONDS = 10.0  # between two tries, while nothing works
PATIENCE = 15.0  # seconds that a job is given to end by itself, and again before it is killed
LIGHT = "light"  # what takes little, and must not wait behind a search
TAIL = 2000  # characters of a log that tell why a job failed


class Supervisor(threading.Thread):
    """Looks after the jobs of one board, alone: a second one over the same workspace is refused.

    slots: devices, a name for each job that may run on it at once. most_starts: of a job whose process is lost without
    getting any further. Raises `Conflict` where another server looks after the workspace.
    """

    def __init__(self, board: Board, slots: tuple[str, ...] = ("cpu",), most_starts: int = 5) -> None:
        super().__init__(name="supervisor", daemon=True)
        self._board = board
        self._most_starts = most_starts
        self._processors = max(1, slots.count("cpu"))
        self._ending: dict[int, tuple[float, int]] = {}  # by job: asked first when, signals sent
        self._children: dict[int, subprocess.Popen[bytes]] = {}
        self._over = threading.Event()
        self._alone = FileLock(board.folder / ".service.lock")
        try:
            self._alone.acquire(timeout=0)
        except Timeout:
            raise Conflict(f"Another server serves {board.folder}.", hint="Use that one, or end it first.") from None
        with board.session() as session:
            set_slots(session, board.owner, [*slots, LIGHT])
            session.commit()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Stop looking; jobs go on."""
        self._over.set()
        self._board.changed.set()
        self.join()
        self._alone.release()

    def run(self) -> None:
        """Look, time and again."""
        trouble = 0
        while not self._over.is_set():
            self._board.changed.clear()
            try:
                self.look()
                if trouble:
                    log.warning("Jobs are looked after again.")
                trouble = 0
            except Exception as error:  # whatever it is: nobody else looks after them
                trouble += 1
                if trouble == 1:
                    log.exception("Jobs could not be looked after; other tries follow.")
                else:
                    log.info("Jobs could not be looked after, try %d: %s", trouble, error)
            self._board.changed.wait(min(SECONDS * 2**trouble, MOST_SECONDS))

    def look(self) -> None:
        """One look at everything."""
        for child in [id for id, process in self._children.items() if process.poll() is not None]:
            del self._children[child]  # it is no zombie any more
        with self._board.alone, self._board.session() as session:
            for row in session.scalars(self._mine(WORKING)).all():
                if not liveness.is_alive(self._board.place(row.id)):
                    self._settle(session, row)
                elif row.intent != "run":
                    self._end(row)
            session.commit()
            for row in session.scalars(self._mine(WAITING).order_by(JobRow.state != "lost", JobRow.position)).all():
                slot = self._free(session, row.device)
                if slot is not None:
                    self._start(session, row, slot)

    def _mine(self, states: tuple[str, ...]) -> "Select[Any]":
        return select(JobRow).filter_by(owner=self._board.owner).where(JobRow.state.in_(states))

    # Starting

    def _free(self, session: Session, device: str) -> SlotRow | None:
        slots = select(SlotRow).filter_by(owner=self._board.owner, job=None).order_by(SlotRow.device, SlotRow.number)
        return next((slot for slot in session.scalars(slots) if slot.device.partition(":")[0] == device), None)

    def _start(self, session: Session, row: JobRow, slot: SlotRow) -> None:
        """What is on record says that a process may be there before one is."""
        folder = self._board.place(row.id)
        try:
            lock = liveness.take(folder)
        except OSError as error:
            self._over_with(session, row, "failed", f"Its folder cannot be used: {error.strerror}.", "Ask again.")
            session.commit()
            return
        if lock is None:  # a process of an earlier start is there after all
            row.state = "running"
            session.commit()
            return
        try:
            for name in (PROGRESS, liveness.PROCESS):  # before a new start is on record: they are of an earlier one
                (folder / name).unlink(missing_ok=True)
            row.state, row.slot, slot.job = "running", slot.device, row.id
            row.starts, row.started, row.ended, row.error, row.hint = row.starts + 1, now(), None, None, None
            session.commit()
            self._children[row.id] = self._launch(row, folder, lock)
        except OSError as error:
            self._over_with(session, row, "failed", f"Its process could not be started: {error.strerror}.")
            session.commit()
        finally:
            os.close(lock)

    def _launch(self, row: JobRow, folder: Path, lock: int) -> "subprocess.Popen[bytes]":
        work = attempt_folder(folder, row.starts)
        work.mkdir(exist_ok=True)
        command = [sys.executable, "-P", "-m", "service.jobs.launch", str(folder), str(row.starts), str(lock)]
        with open(folder / LOG, "ab") as told, open(work / OUTPUT, "wb") as output:
            return subprocess.Popen(
                command, cwd=self._board.folder, stdin=subprocess.DEVNULL, stderr=told, pass_fds=(lock,),
                stdout=told if row.kind == "evolve" else output, start_new_session=True, env=self._environment(row),
            )  # fmt: skip

    def _environment(self, row: JobRow) -> dict[str, str]:
        hidden = {"KINSHIP_TOKEN"}
        own = {name: value for name, value in os.environ.items() if name not in hidden}
        password = self._board.location.url.password
        if password is not None:
            own["PGPASSWORD"] = str(password)  # others see arguments
        if row.slot and row.slot.startswith("cuda:"):
            own["CUDA_VISIBLE_DEVICES"] = row.slot.partition(":")[2]
        if row.slot == "cpu" and self._processors > 1:
            own = thread_environment(max(1, worker_count() // self._processors)) | own
        return own

    # Ending

    def _end(self, row: JobRow) -> None:
        """Ask, then insist: SIGINT, by which a search pauses cleanly, then SIGTERM, then SIGKILL."""
        since, sent = self._ending.setdefault(row.id, (time.monotonic(), 0))
        if time.monotonic() - since < sent * PATIENCE or sent >= len(_SIGNALS):
            return
        if liveness.send(self._board.place(row.id), _SIGNALS[sent]):
            self._ending[row.id] = since, sent + 1

    def _settle(self, session: Session, row: JobRow) -> None:
        """What became of a job whose process is not there any more."""
        folder = self._board.place(row.id)
        self._ending.pop(row.id, None)
        ended = _ended(folder, row.starts)
        if (folder / RESULT).is_dir():
            self._over_with(session, row, "done")
        elif ended is not None and not ended["interrupted"]:
            self._over_with(session, row, "failed", ended.get("message") or _tail(folder), ended.get("hint"))
        elif ended is None and row.intent == "run":
            self._lost(session, row)
        else:
            self._over_with(session, row, "paused" if row.kind in PAUSED and row.intent != "cancel" else "cancelled")

    def _lost(self, session: Session, row: JobRow) -> None:
        """Its process died, or the machine did: it starts again, unless that never gets it any further."""
        reached = self._reached(row)
        row.tries = 1 if reached != row.reached else row.tries + 1
        row.reached = reached
        if row.tries < self._most_starts:
            self._free_slot(session, row)
            row.state = "lost"
            return
        tail = _tail(self._board.place(row.id)) or "(empty)"
        reason = f"Its process was lost {row.tries} times without getting any further. The end of its log: {tail}"
        self._over_with(session, row, "failed", reason, "Is there memory enough? Mend that, then ask again.")

    def _reached(self, row: JobRow) -> int:
        """How far a search is, by the number of its last result, a comparison, by arms done; 0 of other jobs."""
        if row.run is None:
            return 0
        try:
            if row.kind == "compare":
                return arms_in(self._board.folder / row.run)
            if not holds_run(self._board.folder / row.run):
                return 0
            location = location_of(self._board.folder / row.run)
            if location.file is None and self._board.database:
                location = LedgerLocation.parse(self._board.database, location.run)
            with Ledger(location) as ledger:
                return ledger.last_event(RESULTS)
        except KinshipError:
            log.exception("How far the work in %s is cannot be told.", row.run)
            return row.reached

    def _over_with(
        self, session: Session, row: JobRow, state: str, error: str | None = None, hint: str | None = None
    ) -> None:
        self._free_slot(session, row)
        row.state, row.error, row.hint, row.ended = state, error, hint, now()

    def _free_slot(self, session: Session, row: JobRow) -> None:
        session.execute(update(SlotRow).filter_by(owner=self._board.owner, job=row.id).values(job=None))
        row.slot = None


_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGKILL)


def _ended(folder: Path, attempt: int) -> dict[str, Any] | None:
    """What a job's process left word of at its end; None where it could not."""
    with suppress(OSError, ValueError, KeyError, TypeError):
        content = json.loads((folder / ENDED).read_text(encoding="utf-8"))
        if content["attempt"] == attempt:
            return {"interrupted": bool(content["interrupted"]), **content}
    return None


def _tail(folder: Path) -> str:
    with suppress(OSError), open(folder / LOG, "rb") as file:
        file.seek(max(0, file.seek(0, os.SEEK_END) - TAIL))
        return file.read().decode("utf-8", "replace").strip()
    return ""
