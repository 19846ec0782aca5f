"""The queue: order, cap, what is asked twice; in a file and in a database."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from sqlalchemy import select
from sqlalchemy.orm import Session

from kinship.errors import LedgerError
from search.ledger.location import LedgerLocation
from service.jobs.board import Board
from service.jobs.errors import Conflict, NotFound, QueueFull
from service.jobs.table import VERSION, JobRow, ModelRow, Version, open_tables
from tests.service.jobs.conftest import BOTH

if TYPE_CHECKING:
    from tests.search.postgres import Server


@pytest.fixture(params=BOTH)
def board(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Board]:
    database = None
    if request.param == "postgres":
        server: Server = request.getfixturevalue("postgres")
        database = server.new_database()
    board = Board(tmp_path, database, most_queued=3)
    yield board
    board.close()


def submit(board: Board, **options: str) -> int:
    return board.submit("matrix", "one", ["matrix"], files={"recipe.yml": "a: 1\n"}, **options).id


def test_the_queue(board: Board) -> None:
    first, second, third = (submit(board) for _ in range(3))
    assert [job.id for job in board.all().jobs] == [first, second, third]
    assert (board.place(first) / "recipe.yml").read_text() == "a: 1\n"
    with pytest.raises(QueueFull, match="3 jobs wait"):
        submit(board)
    assert [job.id for job in board.move(third, first).jobs] == [third, first, second]
    assert [job.id for job in board.move(third, None).jobs] == [first, second, third]
    assert board.cancel(second).state == "cancelled"
    assert [job.id for job in board.all().jobs] == [first, third, second]
    for wrong in (board.cancel, board.result):
        with pytest.raises(Conflict, match="cancelled"):
            wrong(second)
    with pytest.raises(Conflict, match="no place"):
        board.move(second, None)
    with pytest.raises(Conflict, match="does not wait"):
        board.move(first, second)
    board.remove(second)
    assert not board.place(second).exists()
    with pytest.raises(NotFound, match=f"no job {second}"):
        board.get(second)
    with pytest.raises(Conflict, match="queued"):
        board.remove(first)


def test_jobs_by_pages_and_filters(board: Board) -> None:
    ids = [submit(board) for _ in range(3)]
    for id in ids:
        board.cancel(id)
    waits = submit(board)
    first = board.all(most=2)
    assert ([job.id for job in first.jobs], first.next) == ([waits, ids[2], ids[1]], ids[1])
    second = board.all(first.next, most=2)
    assert ([job.id for job in second.jobs], second.next) == ([ids[0]], None)
    assert [job.id for job in board.all(state="queued").jobs] == [waits]
    assert [job.id for job in board.all(state="cancelled", kind="matrix").jobs] == ids[::-1]
    assert board.all(kind="merge").jobs == board.all(run="here").jobs == []


def test_asked_twice_by_one_key_it_happens_once(board: Board) -> None:
    first = submit(board, key="a", digest="1")
    assert submit(board, key="a", digest="1") == first
    with pytest.raises(Conflict, match="another request"):
        submit(board, key="a", digest="2")
    assert submit(board, key="b", digest="1") != first


def test_one_run_has_one_job_at_a_time(board: Board) -> None:
    first = submit(board, run="here")
    with pytest.raises(Conflict, match=f"Job {first} works in the folder here"):
        submit(board, run="here")
    with pytest.raises(Conflict, match="no search"):
        board.pause(first)
    board.cancel(first)
    assert board.latest("matrix")["here"].id == first
    assert board.latest("matrix")["here"].state == "cancelled"
    assert submit(board, run="here") != first


def test_what_another_server_was_asked_for_is_shown_and_left_alone(board: Board, tmp_path: Path) -> None:
    database = None if board.location.file else board.location.url.render_as_string(hide_password=False)
    if database is None:
        pytest.skip("a file has one server")
    (tmp_path / "other").mkdir()
    other = Board(tmp_path / "other", database)
    id = submit(other)
    assert board.get(id).title == "one"
    with pytest.raises(Conflict, match="belongs to"):
        board.cancel(id)
    other.close()


def older(board: Board) -> LedgerLocation:
    """The tables as a version had them that knew less: no row of versions, no models, no count of tries."""
    submit(board)
    with board.engine.begin() as connection:
        connection.exec_driver_sql("DELETE FROM service_version")
        connection.exec_driver_sql("DROP TABLE model")
        for column in ("tries", "reached", "hint"):
            connection.exec_driver_sql(f"ALTER TABLE job DROP COLUMN {column}")
    return board.location


def test_a_search_has_no_answer_of_its_own(board: Board) -> None:
    id = submit(board)
    with board.session() as session:
        session.get_one(JobRow, id).state = "done"
        session.commit()
    (board.place(id) / "result").mkdir()
    (board.place(id) / "result" / "output.json").touch()
    with pytest.raises(NotFound, match="no answer"):
        board.result(id)


def test_older_tables_are_completed(board: Board) -> None:
    engine = open_tables(older(board))
    with Session(engine) as session:
        row = session.scalars(select(JobRow)).one()
        assert (row.title, row.state, row.tries, row.reached, row.hint) == ("one", "queued", 0, 0, None)
        assert session.scalar(select(Version.version)) == VERSION
        assert session.scalars(select(ModelRow)).all() == []
    engine.dispose()
    again = submit(board)
    assert board.get(again).state == "queued"


def test_tables_of_others_are_refused(board: Board) -> None:
    with board.engine.begin() as connection:
        connection.exec_driver_sql("DROP TABLE job")
        connection.exec_driver_sql("CREATE TABLE job (id INTEGER PRIMARY KEY, employer TEXT)")
    with pytest.raises(LedgerError, match=r"'job' of .* has no 'owner': no service made it"):
        open_tables(board.location)
