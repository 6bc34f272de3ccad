"""Names one photo with an exported fastai learner."""

import sys
from pathlib import Path

from fastai.vision.all import load_learner

learn = load_learner(Path(sys.argv[1]) / "export.pkl")
with learn.no_bar():
    print(learn.predict(sys.argv[2])[0])
