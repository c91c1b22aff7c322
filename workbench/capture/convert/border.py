"""What a conversion changes at the model's border: the types of its inputs."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import onnx

from workbench.capture.feeds import Feeds
from workbench.capture.model import model_inputs


def cast_feeds(feeds: Feeds, model: onnx.ModelProto) -> Feeds:
    """The same values in the types that the model's inputs have; what is no input of it is left out."""
    types = {
        given.name: np.dtype(ml_dtypes.bfloat16 if given.dtype == "bfloat16" else given.dtype)
        for given in model_inputs(model)
        if given.name in feeds
    }
    return {name: feeds[name].astype(dtype, copy=False) for name, dtype in types.items()}
