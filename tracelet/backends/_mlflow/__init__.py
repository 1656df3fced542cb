"""The parts of the MLflow backend; nothing here is for others."""
