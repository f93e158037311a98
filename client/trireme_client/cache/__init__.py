"""A cache of whole answers in the client: off by default, and without any cost when off.

``options`` says what may be kept for how long, ``entries`` keeps it. Neither does any I/O.
"""

from .entries import CacheCounts, Entries, Hit, Key
from .options import Cache

__all__ = ["Cache", "CacheCounts", "Entries", "Hit", "Key"]
