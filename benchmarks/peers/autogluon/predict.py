"""AutoGluon MultiModal names one photo: "AutoMM for Image Classification - Quick Start", load and predict."""

import sys

import pandas as pd
from autogluon.multimodal import MultiModalPredictor

predictor = MultiModalPredictor.load(sys.argv[1])
print(predictor.predict(pd.DataFrame({"image": [sys.argv[2]]}), as_pandas=False)[0])
