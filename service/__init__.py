"""The faces of model-kinship: command line, report, demo."""
