"""Objects by address: S3, or whatever fsspec reaches; listed, read in parts, written whole or not at all."""
