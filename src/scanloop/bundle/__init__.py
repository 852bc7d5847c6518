"""The model directory that is served: written, read and run without pickle."""
