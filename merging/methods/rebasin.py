"""Git Re-Basin: units of differently initialised models are matched; a recipe's `align:`, before any merge_method."""

from merging.registry import Parameter, assembled_method

assembled_method(
    "rebasin",
    Parameter("residual", "permute the channels that all layers share, too", default=True),
    module="merging.rebasin.aligned",
    taxon="alignment",
    formula="P = argmax over permutations of Σ_layers <W_to, P W Pᵀ>, layer by layer by linear assignment",
    reference="Ainsworth et al., Git Re-Basin, arXiv 2209.04836",
)
