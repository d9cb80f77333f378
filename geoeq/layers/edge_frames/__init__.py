"""Operations in the frames of edges, in which the edge is the y axis and SO(3) reduces to SO(2)."""
