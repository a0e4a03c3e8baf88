"""Where tasks are kept: the contract (``base``) and its implementations."""
