"""The parts of the Neptune backend; nothing here is for others."""
