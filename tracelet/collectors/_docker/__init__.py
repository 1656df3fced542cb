"""The parts of the docker collector."""
