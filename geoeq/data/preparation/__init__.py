"""Prepare a data set: fetch its files, read them in chunks or shards, and write the cache."""
