"""The Hugging Face integration; it comes with a later release."""
