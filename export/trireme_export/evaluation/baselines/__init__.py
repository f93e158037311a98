"""What other methods reach on the same split: each is fitted on the training part and scores users by their history alone.

So users of the training and users who were kept out of it are asked in one way.
"""

from __future__ import annotations

from trireme_export.evaluation.baselines.choice import Baselines, Fitted, evaluate_baselines, fit_baselines
from trireme_export.evaluation.baselines.positives import Positives

__all__ = ["Baselines", "Fitted", "Positives", "evaluate_baselines", "fit_baselines"]
