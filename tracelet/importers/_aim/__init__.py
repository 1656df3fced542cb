"""Aim's repositories: which runs there are (`facts`), their databases (`store`), and what is in them (`records`)."""
