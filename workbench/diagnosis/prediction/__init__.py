"""What a lever should give, worked out before anything runs, from the pieces and the nodes of the diagnosis alone."""

from workbench.diagnosis.prediction.formula import Formula, Unpredictable
from workbench.diagnosis.prediction.predict import Prediction, predict

__all__ = ["Formula", "Prediction", "Unpredictable", "predict"]
