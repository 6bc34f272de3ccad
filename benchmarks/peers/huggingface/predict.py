"""Names one photo with a saved Hugging Face model."""

import os
import sys

os.environ["HF_HUB_OFFLINE"] = "1"

from transformers import pipeline

classify = pipeline("image-classification", model=sys.argv[1])
print(classify(sys.argv[2])[0]["label"])
