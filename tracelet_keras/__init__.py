"""The Keras integration; it comes with a later release."""
