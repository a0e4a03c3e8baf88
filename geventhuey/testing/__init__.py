"""The test kit: what an application's own tests need. Nothing in the package imports it."""
