"""The page that tells a run to a clinician and to an engineer."""
