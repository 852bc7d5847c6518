"""The questions that can be asked: each module here is a study, under its own name with dashes."""
