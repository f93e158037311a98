"""A data set: parquet files are read, split and encoded as arrays of indices and features."""

from __future__ import annotations

from trireme_export.data.build import SYNTHETIC, load_dataset, read_dataset
from trireme_export.data.dataset import Dataset
from trireme_export.data.errors import DataColumnError, DataError, DataFileError, DataSizeError, DataValueError
from trireme_export.data.evaluation_set import EvaluationSet, build_evaluation
from trireme_export.data.features import FeatureTable, ListFeature
from trireme_export.data.report import DataReport
from trireme_export.data.synthetic import SyntheticConfig, make_synthetic, write_synthetic
from trireme_export.data.training_data import TrainingData

__all__ = [
    "SYNTHETIC",
    "DataColumnError",
    "DataError",
    "DataFileError",
    "DataReport",
    "DataSizeError",
    "DataValueError",
    "Dataset",
    "EvaluationSet",
    "FeatureTable",
    "ListFeature",
    "SyntheticConfig",
    "TrainingData",
    "build_evaluation",
    "load_dataset",
    "make_synthetic",
    "read_dataset",
    "write_synthetic",
]
