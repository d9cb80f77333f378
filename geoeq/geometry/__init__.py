"""Everything computed from coordinates only, without parameters."""
