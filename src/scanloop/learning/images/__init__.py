"""Semi-supervised training on images: what a pool teaches an encoder and its head together, one method a file."""
