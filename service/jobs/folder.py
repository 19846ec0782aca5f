"""A job's folder: what lies in it, and where its attempts work."""

from pathlib import Path

ARGUMENTS, ENDED, RESULT, OUTPUT, PROGRESS, LOG = (
    "arguments.json", "ended.json", "result", "output.json", "progress.json", "log",
)  # fmt: skip


def attempt_folder(folder: Path, attempt: int) -> Path:
    """Where the so manyth attempt works."""
    return folder / f"attempt-{attempt}"


def placed(arguments: list[str], folder: Path, work: Path) -> list[str]:
    """A job's arguments with its folders in place of their names.

    >>> placed(["merge", "--", "{job}/recipe.yml", "{work}/model"], Path("jobs/1"), Path("jobs/1/attempt-1"))
    ['merge', '--', 'jobs/1/recipe.yml', 'jobs/1/attempt-1/model']
    """
    names = {"{job}/": folder, "{work}/": work}

    def place(argument: str) -> str:
        for name, path in names.items():
            if argument.startswith(name):
                return str(path / argument.removeprefix(name))
        return argument

    return [place(argument) for argument in arguments]
