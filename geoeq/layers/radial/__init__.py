"""Radial bases, cutoff envelopes and radial networks."""
