"""Metrics, baselines, predictions and comparisons, with their tables and plots."""
