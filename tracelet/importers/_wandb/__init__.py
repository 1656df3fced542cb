"""W&B's offline runs: the log (`log`), and what its records say (`records`)."""
