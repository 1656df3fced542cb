"""The parts of the system collector: each reads one kind of source, on the collector's thread."""
