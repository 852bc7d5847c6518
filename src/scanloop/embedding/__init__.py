"""Encoders, and the engine that turns slices into vectors."""
