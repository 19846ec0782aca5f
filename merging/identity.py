"""When are two models the same weights? By content for files, by coefficients for genomes."""

import hashlib
import json
from collections.abc import Mapping

import numpy as np

from merging.span import Genome, Span


def genome_identity(genome: Genome, span: Span, digests: Mapping[str, str]) -> str:
    """sha256 that is equal for genomes that materialise to the same bytes from the same founders.

    ``digests`` maps the ids of the span to their `Checkpoint.digest`; founders with no share do not count.
    """
    used = np.flatnonzero(genome.coefficients.any(axis=0)).tolist()
    founders = [digests[span.ids[index]] for index in used]
    sha = hashlib.sha256(json.dumps([founders, span.names]).encode())
    sha.update(Genome(genome.coefficients[:, used] + 0.0).to_bytes())  # -0.0 + 0.0 is 0.0
    return sha.hexdigest()
