"""KFP components, one file a step: a typed door to `scanloop.steps`, without logic of its own."""
