"""LightlyTrain names one photo: the page "Image Classification", load the trained model from checkpoint and predict."""

# for the benchmark
import os
import sys

os.environ["LIGHTLY_TRAIN_EVENTS_DISABLED"] = "1"
# end

import lightly_train

model = lightly_train.load_model(sys.argv[1] + "/exported_best.pt")
label = model.predict(sys.argv[2])["labels"][0].item()
print(model.classes[label])
