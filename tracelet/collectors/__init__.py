"""Collectors: each records something about what surrounds a training, on a thread of its own."""
