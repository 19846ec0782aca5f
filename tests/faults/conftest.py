"""Faults are tried on the command line, called in this process, and on searches of small models."""

from tests.evaluators.conftest import tiny as tiny
from tests.search.conftest import scene as scene
from tests.service.conftest import kinship as kinship
