"""Operations on features with irreps: layout, linear maps, gates, norms and dropout."""
