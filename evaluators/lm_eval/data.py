"""Documents of tasks by what their files hold: the datasets library keeps what it has read under a file's date."""

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch


@contextmanager
def read_by_content() -> Iterator[None]:
    """Within, local data files are prepared anew unless files of equal content were, and documents are worked on anew.

    What tasks do with documents (``process_docs``) is kept by datasets under the text of a function, without that of
    others it calls. Cost: reading the files once more.
    """
    import datasets
    from datasets import data_files
    from datasets.utils.extract import ExtractManager

    of_date, by_path = data_files._get_single_origin_metadata, ExtractManager._get_output_path

    def of_content(data_file: str, *args: Any, **kwargs: Any) -> tuple[str, ...]:
        file = data_file.rpartition("::")[2]  # of what lies in an archive, the archive
        return (_digest(file),) if os.path.isfile(file) else tuple(of_date(data_file, *args, **kwargs))

    def output_path(self: ExtractManager, path: str) -> str:
        return f"{by_path(self, path)}.{_digest(path)}"

    kept = datasets.is_caching_enabled()
    datasets.disable_caching()
    try:
        with (
            patch.object(data_files, "_get_single_origin_metadata", of_content),
            patch.object(ExtractManager, "_get_output_path", output_path),
        ):
            yield
    finally:
        if kept:
            datasets.enable_caching()


def _digest(file: str) -> str:
    with open(file, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
