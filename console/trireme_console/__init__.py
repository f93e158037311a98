"""The page of ``trireme console``: what a server answers, how fast each stage is against its budget, and one call in detail.

It only reads statistics, metrics and the configuration of the server, and makes ordinary calls of ``recommend``.
"""
