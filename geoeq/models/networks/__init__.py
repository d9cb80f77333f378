"""Networks, one file each, with the heads that belong to a single paper."""
