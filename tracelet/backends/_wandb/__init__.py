"""The parts of the Weights & Biases backend; nothing here is for others."""
