"""Faults are tried on the command line, called in this process."""

from tests.service.conftest import kinship as kinship
