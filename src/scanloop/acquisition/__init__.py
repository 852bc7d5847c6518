"""Which images are worth a label: uncertainty, diversity, and the price that bounds them."""
