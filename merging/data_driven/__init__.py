"""Merge methods that look at data: what each input is worth is measured by running the models, not read off weights.

- `batches`, `predictions`, `models`: a stream of batches, and what a model says of one.
- `statistics`: what was measured of one model, kept as a file, so that it is measured once and shared.
- `diagonals`, `fisher`: Fisher-weighted averaging. `grams`, `regmean`: RegMean. `adamerging`: AdaMerging.
- `along`: the matrices of RegMean++. `run`: whole models. `prepare`: what a recipe's method wants to know.

CUDA is served by the same code through a ``device`` argument and is UNTESTED: no GPU was at hand.
"""
