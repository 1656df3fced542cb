"""Brings runs of other trackers into Tracelet: one importer a tracker, and one way to write what they read."""
