"""From an unlabelled archive of medical images and few labels to a calibrated, served, watched model."""

__version__ = "0.1.0"
