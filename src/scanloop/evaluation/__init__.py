"""How good a model is, with intervals: metrics, intervals by group, figures."""
