"""provisional"""
from __future__ import annotations


class FaultProxy:
    pass
