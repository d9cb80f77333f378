"""The networks, one file each, with heads of their own where a paper has them."""
