"""The archive as it comes in: readers, decoding, duplicates, splits and shards."""
