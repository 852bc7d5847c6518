"""Semi-supervised learning on frozen features: one method a file, one interface, and the policy that chooses."""
