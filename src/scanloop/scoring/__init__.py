"""Images in, rows of predictions out: over HTTP or in process, into one table that a killed run goes on with."""
