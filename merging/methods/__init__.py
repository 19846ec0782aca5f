"""One file per method, named after it; those that share a kernel share a file."""

# The file of each method that is not in one of its own name, so that a method is loaded without the others.
SHARED_FILES = {
    "breadcrumbs": "sparse",
    "breadcrumbs_ties": "sparse",
    "dare_linear": "sparse",
    "dare_ties": "sparse",
    "della": "sparse",
    "della_linear": "sparse",
    "ramplus_tl": "ram",
    "regmean_plus_plus": "regmean",
    "ties": "sparse",
}
