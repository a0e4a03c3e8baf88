"""Monitor: the commands that clients send, as Redis shows them, each with its origin: those within scripts can be told apart."""

from __future__ import annotations

import redis


def count_commands(monitor: redis.client.Monitor, client: redis.Redis) -> int:
    """How many commands clients have sent since the monitor began."""
    client.echo('the end')
    count = 0
    while True:
        command = monitor.next_command()
        if command['command'] == 'ECHO the end':
            return count
        if command['client_type'] != 'lua':
            count += 1
