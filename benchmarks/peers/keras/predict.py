"""Names one photo with the saved Keras model."""

import os
import sys
from pathlib import Path

os.environ["KERAS_BACKEND"] = "jax"

import keras

artefact, photo = Path(sys.argv[1]), sys.argv[2]
model = keras.models.load_model(artefact / "model.keras")
classes = (artefact / "classes.txt").read_text().splitlines()
image = keras.utils.load_img(photo, target_size=(224, 224), interpolation="bilinear")
scores = model.predict(keras.utils.img_to_array(image)[None], verbose=0)
print(classes[scores[0].argmax()])
