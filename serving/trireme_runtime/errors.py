"""Errors of this package.

TriremeStageError
├── ArtifactError       a file of a bundle is missing, damaged or of another format
│   └── BundleError     a model repository as a whole does not hold together
├── ConfigError         a model's config does not fit its graph, or asks for what its engine does not do
└── FeatureStoreError   the address of a feature store is not allowed, or what asks it is not installed
"""

from __future__ import annotations

__all__ = ["ArtifactError", "BundleError", "ConfigError", "FeatureStoreError", "TriremeStageError"]


class TriremeStageError(Exception):
    """Base of everything this package raises on purpose."""


class ArtifactError(TriremeStageError):
    """A stage's files cannot be read; the message names the file, what it holds and what is expected."""


class BundleError(ArtifactError):
    """The model repository is incomplete or was changed since it was exported."""


class ConfigError(TriremeStageError):
    """A model's config does not fit its graph, or asks for what its engine does not do."""


class FeatureStoreError(TriremeStageError):
    """A feature store cannot be asked as it is configured. One that does not answer is no error."""
