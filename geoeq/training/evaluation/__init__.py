"""Metrics, baselines, predictions, comparisons, and their tables and plots."""
