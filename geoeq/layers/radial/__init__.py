"""Functions of the distance: bases, envelopes and the networks that compute weights from them."""
