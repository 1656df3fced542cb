"""The journal: the durable, complete, local record of a run. See docs/journal-format.md for the bytes."""
