"""Erasure: one patient leaves a run's folder, every file of it, and what learnt from them is named."""
