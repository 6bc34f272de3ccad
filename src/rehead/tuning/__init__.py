"""Where a head learns: what to do, heads in closed form, heads by gradient steps."""
