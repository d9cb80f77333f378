"""The command line ``geoeq``, with one file per command."""
