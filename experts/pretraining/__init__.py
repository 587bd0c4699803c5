"""The recipe of the embedded base: data, stages, probes."""
