"""The graphs, cut where a human acts or a clock ticks, and what runs, compiles and submits them."""
