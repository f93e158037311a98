"""What runs inside the server: five stages as pure array functions, and the adapter that serves them.

The path of a request: ``feature_transform`` → ``user_tower`` → ``retrieval`` → ``ranking`` → ``reranking``.
Only ``triton`` knows Triton; nothing here knows of training (no torch).
"""
