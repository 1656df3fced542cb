"""Delivery: from the journal to the backends, one worker each. Nothing here is called by a log call."""
