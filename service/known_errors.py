"""Which errors of Python and of libraries are the system's doing, told as errors of ours; any other is a fault."""

import errno
import os
from collections.abc import Iterator

from kinship.errors import KinshipError, OutputNotWritable, SystemRefused

_HINTS = {
    errno.EACCES: "See to its permissions, or give another place.",
    errno.EPERM: "See to its permissions, or give another place.",
    errno.EROFS: "Give a place that can be written.",
    errno.ENOSPC: "Make room on the disk, then run the command again.",
    errno.EDQUOT: "Make room on the disk, then run the command again.",
    errno.EFBIG: "Allow larger files: ulimit -f unlimited.",
    errno.EMFILE: "Allow more open files: ulimit -n 65536.",
    errno.ENFILE: "Allow more open files: ulimit -n 65536.",
    errno.ENOMEM: "Close other programs, or use smaller models; ulimit -v says what is allowed.",
    errno.ENOLCK: "Choose a folder on a file system that has locks (flock).",
    errno.EOPNOTSUPP: "Choose a folder on a file system that can do this.",
    errno.EAGAIN: "Allow more processes and threads: ulimit -u, or the limit of the container.",
}
_TOLD = {errno.ENOMEM: "There is not enough memory.", errno.EAGAIN: "No further process or thread can be started."}

# How libraries say so, which raise errors of many classes and none with a number: numpy and llvmlite as they are
# loaded, torch's allocators, threads of Python and of OpenMP.
_SAID = {
    "cannot allocate memory": errno.ENOMEM,
    "can't allocate memory": errno.ENOMEM,
    "failed to map segment": errno.ENOMEM,
    "out of memory": errno.ENOMEM,
    "std::bad_alloc": errno.ENOMEM,
    "can't start new thread": errno.EAGAIN,
    "pthread_create failed": errno.EAGAIN,
}


def known_error(error: BaseException) -> KinshipError | None:
    """``error`` as one that input or system can cause; None for what is a fault of the program."""
    if isinstance(error, KinshipError):
        return error
    lacking = shortage(error)
    if lacking is not None:
        return SystemRefused(_TOLD[lacking], hint=_HINTS[lacking])
    if not isinstance(error, OSError) or error.errno is None or (error.errno == errno.EPIPE):
        return None
    why = error.strerror or os.strerror(error.errno)
    hint = _HINTS.get(error.errno)
    if error.filename is None and error.errno in {errno.ENOSPC, errno.EIO, errno.EFBIG, errno.EBADF}:
        return OutputNotWritable(f"Output could not be written: {why}.", hint="Make room, or send it elsewhere.")
    name = os.fsdecode(error.filename) if isinstance(error.filename, str | bytes) else "The system"
    return SystemRefused(f"{name}: {why}.", hint=hint or "See to that place.")


def shortage(error: BaseException) -> int | None:
    """What ran out, ENOMEM or EAGAIN, where ``error`` or what it was raised from says so.

    >>> shortage(ImportError("libopenblas.so: failed to map segment from shared object")) == errno.ENOMEM
    True
    """
    if isinstance(error, OSError) and error.errno == errno.EAGAIN and error.strerror == os.strerror(errno.EAGAIN):
        return errno.EAGAIN  # of fork; a stream that would block says other words
    for each in _chain(error):
        if isinstance(each, MemoryError) or (isinstance(each, OSError) and each.errno == errno.ENOMEM):
            return errno.ENOMEM
        named = isinstance(each, OSError) and each.filename  # what a file is called says nothing
        said = "" if named else str(each).lower()
        found = next((number for words, number in _SAID.items() if words in said), None)
        if found is not None:
            return found
    return None


def _chain(error: BaseException) -> Iterator[BaseException]:
    link: BaseException | None = error
    while link is not None:
        yield link
        link = link.__cause__ if link.__suppress_context__ else link.__context__
