"""The parts of the environment collector."""
