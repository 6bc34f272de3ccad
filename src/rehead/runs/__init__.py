"""One tuning job on disk: its folder, what is logged and recorded in it, how it is taken up, built on and listed."""
