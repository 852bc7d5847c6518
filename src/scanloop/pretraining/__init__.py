"""Self-supervised training of an encoder on the unlabelled pool."""
