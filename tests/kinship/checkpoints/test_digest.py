import hashlib
import json

import pytest

from kinship.checkpoints.checkpoint import ContentDigest
from kinship.checkpoints.dtypes import BFLOAT16, BY_NAME

TENSORS = [("b", BFLOAT16, (2, 1)), ("a", BY_NAME["uint8"], (3,)), ("empty", BFLOAT16, (0, 4)), ("z", BFLOAT16, (0,))]


def test_it_is_sha256_over_headers_and_bytes_in_order_of_names() -> None:
    digest = ContentDigest(TENSORS)
    digest.update("a", memoryview(b"12"))
    digest.update("a", memoryview(b"3"))
    digest.update("b", memoryview(b"4567"))
    content = b'["a", "uint8", [3]]123["b", "bfloat16", [2, 1]]4567["empty", "bfloat16", [0, 4]]["z", "bfloat16", [0]]'
    assert digest.hexdigest() == hashlib.sha256(content).hexdigest()
    assert json.dumps(["a", "uint8", (3,)]).encode() in content


def test_bytes_out_of_order_are_a_bug_that_is_told() -> None:
    digest = ContentDigest(TENSORS)
    digest.update("b", memoryview(b"4567"))
    with pytest.raises(ValueError, match="'a' comes out of order"):
        digest.update("a", memoryview(b"123"))
