"""Studies: a question, a grid of trainings that answers it, and a table with intervals. One file a question."""
