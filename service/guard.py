"""The last guard: whatever happens, a command ends with one line, or one JSON object, and an exit code that tells.

0: done. 1: an error that input or system can cause. 2: a command that is none. 70: a fault of this program, with a
report in a file. 130: stopped by Ctrl-C.
"""

import atexit
import errno
import json
import os
import signal
import sys
import traceback
import warnings
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from kinship.errors import InvalidConfig, KinshipWarning, OutputNotWritable, SystemRefused
from kinship.temporary import provide_caches
from service.known_errors import known_error, shortage

FAULT = 70  # EX_SOFTWARE of sysexits.h
STOPPED = 130

# Told where there is not even the memory to tell it as everything else is.
_NO_MEMORY = SystemRefused("There is not enough memory.", hint="Close other programs, or use smaller models.")
_AS_TEXT = f"Error: {_NO_MEMORY.message}\nNext:  {_NO_MEMORY.hint}\n".encode()
_AS_JSON = (json.dumps(_NO_MEMORY.as_dict()) + "\n").encode()
_interrupted = False


def guarded(command: Callable[[], object]) -> int:
    """Run ``command`` and tell of what it raises; returns the exit code."""
    global _interrupted
    _interrupted = False
    before, shown = signal.getsignal(signal.SIGINT), warnings.showwarning
    try:
        _prepare()
        _require_working_directory()
        _require_threads()
        command()
        sys.stdout.flush()
        return 0
    except BaseException as error:
        _ignore_interrupts()  # one is enough
        lacking = shortage(error)
        if lacking is not None:
            traceback.clear_frames(error.__traceback__)  # what they hold is needed to tell
            atexit.register(_end_in_silence)
        try:
            return _told(error)
        except BaseException as trouble:
            if errno.ENOMEM in (lacking, shortage(trouble)):
                return _told_without_memory()
            if isinstance(trouble, OSError):  # standard error is gone as well, so nobody can be told
                return 1
            raise
    finally:
        warnings.showwarning = shown
        if before is not None:
            signal.signal(signal.SIGINT, before)
        for stream in (sys.stdout, sys.stderr):
            _silence(stream)


def _prepare() -> None:
    """Streams that can be written to, an interrupt that is remembered, warnings in the form of notes."""
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(number)
        except OSError:  # closed: the next file opened would be taken for it
            os.open(os.devnull, os.O_RDWR)
            if getattr(sys, name) is None:
                mode = "r" if number == 0 else "w"
                setattr(sys, name, os.fdopen(number, mode, encoding="utf-8", closefd=False))
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(errors="backslashreplace")  # as standard error: a name must not end a command
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _interrupt)
    provide_caches()
    os.environ["MPLBACKEND"] = "agg"  # pictures are written, none is shown: one that is not here would end a command
    shown, told = warnings.showwarning, set[str]()

    def show(message: Warning | str, category: type[Warning], *place: Any, **more: Any) -> None:
        from service.console import note

        if not issubclass(category, KinshipWarning):
            shown(message, category, *place, **more)
        elif str(message) not in told:
            told.add(str(message))
            note(str(message))

    warnings.showwarning = show


def _require_working_directory() -> None:
    try:
        os.getcwd()
    except OSError:  # libraries end the process, one without a word
        raise SystemRefused("The working directory is no more.", hint="Change to a folder that is there: cd.") from None


def _require_threads() -> None:
    """Numba fails as it is imported where their number is none, or says so with a traceback."""
    given = os.environ.get("NUMBA_NUM_THREADS", "").strip()
    if not given:
        os.environ.pop("NUMBA_NUM_THREADS", None)
    elif not given.isdecimal() or not int(given):
        message = f"NUMBA_NUM_THREADS is {given!r}: expected a number from 1 on."
        raise InvalidConfig(message, hint="Unset that environment variable, or mend it.")


def _interrupt(*_: object) -> None:
    global _interrupted
    _interrupted = True  # some libraries make another error of what is raised while they are imported
    raise KeyboardInterrupt


def _ignore_interrupts() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _told(error: BaseException) -> int:
    """Say what happened, to whom it can be said; returns the exit code."""
    import typer

    from service.console import print_error

    as_json = "--json" in sys.argv
    if isinstance(error, typer.Exit):
        sys.stdout.flush()
        return error.exit_code
    if isinstance(error, SystemExit):
        return error.code if isinstance(error.code, int) else 0 if error.code is None else 1
    if _interrupted or isinstance(error, KeyboardInterrupt | typer.Abort | EOFError):
        print("Stopped.", file=sys.stderr)
        return STOPPED
    unwritable = _silence(sys.stdout)
    if isinstance(unwritable, BrokenPipeError):
        return 1  # the reader has seen enough
    if unwritable is not None:
        error, as_json = _of_stdout(unwritable), False
    code, found = 1, known_error(error)
    if found is None and isinstance(error, typer.BadParameter.__mro__[2]):  # click's base of errors of usage
        usage: Any = error
        if usage.message:  # pydantic's words, of which typer makes an error of usage
            usage.message = usage.message.replace("Value error, ", "").replace("Input should be", "expected")
        code = int(usage.exit_code)
        if not as_json:
            usage.show()
            return code
        found = InvalidConfig(usage.format_message(), hint="See --help.")
    if found is None:
        from service.fault import Fault

        code, found = FAULT, Fault.of(error)
    try:
        print_error(found, as_json=as_json)
    except OSError as trouble:
        _silence(sys.stdout)
        print_error(_of_stdout(trouble), as_json=False)
    return code


def _end_in_silence() -> None:
    """What libraries cannot do at the end for want of the same was told already."""
    sys.unraisablehook = lambda unraisable: None


def _told_without_memory() -> int:
    as_json = "--json" in sys.argv
    with suppress(OSError):
        os.write(1 if as_json else 2, _AS_JSON if as_json else _AS_TEXT)
    return 1


def _of_stdout(error: OSError) -> OutputNotWritable:
    return OutputNotWritable(
        f"Standard output could not be written: {error.strerror or error}.", hint="Send it to another place."
    )


def _silence(stream: Any) -> OSError | None:
    """Flush ``stream``; where that fails, drop what it holds, so that nothing is raised at the end. Returns why."""
    try:
        stream.flush()
    except OSError as error:
        nothing = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nothing, stream.fileno())
        os.close(nothing)
        return error
    except ValueError:  # closed
        return None
    return None
