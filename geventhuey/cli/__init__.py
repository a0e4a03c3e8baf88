"""The commands: ``geventhuey-consumer`` and ``geventhuey``. Importing them does nothing."""
