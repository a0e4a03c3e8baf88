"""Peers: other task queues, and what measures them side by side with geventhuey."""
