"""One file a revision of the schema, named by its number. Readings are never given up: no revision goes back."""
