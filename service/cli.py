"""Entry point of the ``kinship`` command: nothing is imported before somebody looks after what goes wrong."""

import sys

from kinship.faces import lazy_face

__getattr__ = lazy_face(__name__, dict.fromkeys(("COMMANDS", "GROUPS", "app"), "service.app"))


def main() -> None:
    """Run the command of ``sys.argv``, and end with its exit code: see `service.guard`."""
    try:
        from service.guard import guarded
    except KeyboardInterrupt:
        sys.exit(130)
    except MemoryError:
        sys.exit("Error: There is not enough memory.")
    sys.exit(guarded(_run))


def _run() -> None:
    from typer.main import get_command

    from service.app import app

    command = get_command(app)
    with command.make_context("kinship", sys.argv[1:]) as context:
        command.invoke(context)


if __name__ == "__main__":
    main()
