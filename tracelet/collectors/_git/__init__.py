"""The parts of the git collector."""
