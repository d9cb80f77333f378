"""Training: recipes, the training loop, evaluation and comparison.

Importing this package needs no extra; training itself needs the extra "train".
"""
