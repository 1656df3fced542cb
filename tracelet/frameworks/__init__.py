"""Integrations for training loops of your own, by the hooks that a framework has."""
