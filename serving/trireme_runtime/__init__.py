"""What runs inside the server: five stages as pure array functions, and the adapter that serves them.

The path of a request: ``feature_transform`` → ``user_tower`` → ``retrieval`` → ``ranking`` → ``reranking``.
This package knows nothing of training (no torch) and, apart from ``triton_model``, nothing of Triton.
"""
