import inspect
import json

from kinship import errors
from kinship.errors import KinshipError, OutputExists

TYPES = [kind for _, kind in inspect.getmembers(errors, inspect.isclass) if issubclass(kind, KinshipError)]


def test_every_error_has_a_code_of_its_own() -> None:
    assert len({kind.code for kind in TYPES}) == len(TYPES) > 5


def test_json_form() -> None:
    error = OutputExists("out exists already.", hint="Choose another name.")
    assert json.loads(json.dumps(error.as_dict())) == {
        "schema": "kinship.error/1",
        "code": "output_exists",
        "message": "out exists already.",
        "hint": "Choose another name.",
    }
    assert str(error) == "out exists already."
