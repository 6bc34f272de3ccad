"""Network, head and preprocessing as a graph that runs anywhere."""
