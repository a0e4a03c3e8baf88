"""The soak: ``python -m geventhuey.testing.soak --help``."""
