"""TensorBoard's files: their frames (`frames`), and what is in them (`events`)."""
