"""The parts of the ClearML backend; nothing here is for others."""
