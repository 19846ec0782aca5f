"""A fault of this program: told in one line, with a report in a file that holds no secret."""

import os
import platform
import sys
import tempfile
import traceback
from importlib.metadata import PackageNotFoundError, version
from typing import Self

from kinship.errors import KinshipError
from kinship.outside import without_secrets

PACKAGES = (
    "model-kinship",
    "numpy",
    "numba",
    "torch",
    "transformers",
    "tokenizers",
    "safetensors",
    "lm_eval",
    "datasets",
)


class Fault(KinshipError):
    """Something that no input should cause: a fault of this program."""

    code = "internal_error"

    @classmethod
    def of(cls, error: BaseException) -> Self:
        """What is told of ``error``; its report is written to the system's folder for temporary files."""
        said = str(error).strip().splitlines()
        what = without_secrets(f"{type(error).__name__}: {said[0]}" if said else type(error).__name__)
        try:
            handle, path = tempfile.mkstemp(prefix="kinship-fault-", suffix=".txt")
            with open(handle, "w", encoding="utf-8", errors="backslashreplace") as file:
                file.write(report_of(error))
        except OSError as trouble:
            frame = traceback.extract_tb(error.__traceback__)[-1]
            hint = f"It was raised in {frame.filename}, line {frame.lineno}; no report could be written: {trouble}."
            return cls(f"A fault of this program: {what}.", hint=hint)
        return cls(f"A fault of this program: {what}.", hint=f"Please file it, with the report in {path}.")


def report_of(error: BaseException) -> str:
    """The command, versions and traceback, for whoever mends it."""
    lines = [
        f"command: {' '.join(sys.argv)}",
        f"python: {platform.python_version()} on {platform.platform()}",
        *(f"{name}: {_version(name)}" for name in PACKAGES),
        f"processors: {os.cpu_count()}",
        "",
        *traceback.format_exception(error),
    ]
    return without_secrets("\n".join(lines)) + "\n"


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"
