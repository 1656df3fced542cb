"""The parts of `jax_framework`. JAX, Flax and Optax are imported here, at the top, and so by nothing but a use."""
