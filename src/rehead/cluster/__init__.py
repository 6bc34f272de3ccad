"""The same job on many machines, by Ray: what is asked of them, and what runs there."""
