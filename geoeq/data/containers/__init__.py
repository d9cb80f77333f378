"""Archives and databases in which data sets are published: zip, tar, LMDB."""
