"""The processors that come with Tracelet: a module each, named by an entry point of the group `tracelet.plugins`."""
