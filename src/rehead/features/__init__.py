"""A frozen prefix run once for each photo, and what it gave kept."""
