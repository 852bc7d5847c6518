"""The clinicians' page: images to read, disputes to decide, and what a curator watches, over the label store."""
