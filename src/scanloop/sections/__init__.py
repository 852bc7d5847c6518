"""Sections of the configuration that are too long for `scanloop.config`, one file a subject."""
