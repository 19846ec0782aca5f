"""The demo family: a few tiny models, truly trained on text skills, to try everything else on."""
