"""Small helpers without state. Import them from their own module."""
