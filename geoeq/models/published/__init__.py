"""Authors' parameter names and layouts, translated to geoeq's."""
