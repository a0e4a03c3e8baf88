"""What the commands' arguments may be."""

from __future__ import annotations

import argparse
from collections.abc import Callable


def number_between(kind: Callable[[str], float], lowest: float, highest: float) -> Callable[[str], float]:
    """What reads a number of this kind and refuses all others."""
    def read(text: str) -> float:
        try:
            value = kind(text)
        except ValueError:
            value = float('nan')
        if not lowest <= value <= highest:
            what = 'a whole number' if kind is int else 'a number'
            raise argparse.ArgumentTypeError(f'{text!r}: {what} from {lowest} to {highest} is needed')
        return value
    return read
