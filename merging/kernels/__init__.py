"""Building blocks of merge methods: arrays in, arrays out, each once."""
