"""Preparation of a data set: fetch its files, read them in chunks, write the store."""
