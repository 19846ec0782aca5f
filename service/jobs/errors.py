"""What a service refuses, beside input that cannot be used."""

from kinship.errors import KinshipError


class NotFound(KinshipError):
    """There is no run, individual, job, model or file of that name."""

    code = "not_found"


class Refused(KinshipError):
    """A reference leads out of the workspace, or would run code of others."""

    code = "refused"


class Conflict(KinshipError):
    """What is asked for does not go with the state that things are in."""

    code = "conflict"


class QueueFull(KinshipError):
    """No more jobs are taken on."""

    code = "queue_full"
