"""Embeddings of the inputs: elements, charges, velocities, edges."""
