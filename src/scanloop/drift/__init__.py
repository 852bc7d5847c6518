"""Whether the confidence of today looks like that of the reference profile."""
