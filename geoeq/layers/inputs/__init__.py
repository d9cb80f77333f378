"""Initial features: embeddings of nodes, edges, coordinates and elements."""
