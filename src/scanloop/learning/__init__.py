"""Learning from labelled and unlabelled images: heads, pseudo-labels, fine-tuning, cross-validation."""
