"""Models on the Hugging Face Hub, or anything that speaks its protocol (``HF_ENDPOINT``).

Offline mode (``HF_HUB_OFFLINE``), tokens and the cache are those of `huggingface_hub`.
"""

import glob
import os
from pathlib import Path

from kinship.errors import ReferenceNotFound

# Weights as safetensors only: no pickle and no code is ever downloaded.
_PATTERNS = ("*.safetensors", "*.json", "*.model", "*.txt", "*.jinja", "LICENSE*", "README.md")


def fetch_snapshot(repo: str, revision: str | None = None, subfolder: str | None = None) -> Path:
    """Local snapshot of ``repo`` at ``revision`` (a branch, tag or commit; default main), downloading what is missing.

    Only files directly in the repository, or directly in ``subfolder``, are downloaded. The snapshot's name is the
    commit. Raises `ReferenceNotFound` for what is not there, not allowed, not reachable or breaks off; what a broken
    download has left behind is not used.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import (
        GatedRepoError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    named = f"{repo}@{revision}" if revision else repo
    if revision and (revision.startswith("/") or ".." in revision):
        raise ReferenceNotFound(
            f"{revision!r} is no revision of {repo}.", hint="Give a branch, a tag or a commit; none can hold '..'."
        )
    prefix = f"{glob.escape(subfolder.strip('/'))}/" if subfolder else ""
    try:
        folder = snapshot_download(
            repo,
            revision=revision,
            endpoint=(os.environ.get("HF_ENDPOINT") or "").rstrip("/") or None,
            allow_patterns=[prefix + pattern for pattern in _PATTERNS],
            ignore_patterns=[f"{prefix}*/*"],
        )
    except GatedRepoError:
        raise ReferenceNotFound(
            f"{repo} is gated on the Hub: it is there, but its files are only for those who were granted access.",
            hint="Accept its terms at its page, then log in with `hf auth login`.",
        ) from None
    except RepositoryNotFoundError:
        raise ReferenceNotFound(
            f"There is no model {repo!r}: no such folder here, and none on the Hub that you may read.",
            hint="Check the spelling; for a private model log in with `hf auth login`.",
        ) from None
    except RevisionNotFoundError:
        raise ReferenceNotFound(
            f"{repo} has no revision {revision or 'main'!r} on the Hub.",
            hint="Give a branch, a tag or a commit that its page lists; the default is main.",
        ) from None
    except LocalEntryNotFoundError as error:
        where = "only in part" if type(error).__name__ == "IncompleteSnapshotError" else "not"
        raise ReferenceNotFound(
            f"{named} is no local folder, it is {where} in the local Hub cache, and the Hub cannot be reached.",
            hint="Connect, unset HF_HUB_OFFLINE, or give a local folder.",
        ) from error
    except Exception as error:  # whatever else a download can end with: HTTP, TLS, proxies, Xet, disks, ids
        reason = next(iter(str(error).strip().splitlines()), "no reason given")
        raise ReferenceNotFound(
            f"{named} could not be downloaded from the Hub ({type(error).__name__}: {reason}).",
            hint="Try again: files that came whole are kept. Or give a local folder.",
        ) from error
    return Path(folder)
