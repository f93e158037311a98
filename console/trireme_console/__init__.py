"""A web page for the wall: what a server answers, how fast each stage is against its budget, and one call in detail.

Reads only: statistics, metrics and configuration of the server, and ordinary calls of ``recommend``.
"""
