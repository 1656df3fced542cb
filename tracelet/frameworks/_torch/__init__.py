"""Parts of `torch_framework`; not to be imported from elsewhere."""
