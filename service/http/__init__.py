"""The service: the API under ``/api/v1``, and the pages on top of it."""
