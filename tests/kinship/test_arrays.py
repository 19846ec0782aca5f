import gc
import io
import threading
import time

import numpy as np
import pytest

from kinship.arrays import read_arrays


def test_arrays_are_read_by_many_threads_at_once() -> None:
    """Python's parser lost count of its depth where another thread came in between, as collecting garbage lets it."""
    file = io.BytesIO()
    np.savez(file, **{f"array-{number}": np.full((2, 3), number) for number in range(5)})  # type: ignore[arg-type]
    failures: list[BaseException] = []

    def read() -> None:
        try:
            for _ in range(40):
                found = read_arrays(io.BytesIO(file.getvalue()))
                assert [int(array[0, 0]) for array in found.values()] == list(range(5))
        except BaseException as error:
            failures.append(error)

    def give_way(*_: object) -> None:
        time.sleep(0)

    before = gc.get_threshold()
    gc.callbacks.append(give_way)
    gc.set_threshold(20)
    try:
        threads = [threading.Thread(target=read) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        gc.set_threshold(*before)
        gc.callbacks.remove(give_way)
    assert not failures


def test_pickles_are_not_read() -> None:
    file = io.BytesIO()
    np.savez(file, one=np.array([{}], dtype=object))
    file.seek(0)
    with pytest.raises(ValueError, match="allow_pickle"):
        read_arrays(file)
