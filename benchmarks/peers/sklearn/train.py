"""Features of a frozen timm network, and scikit-learn's logistic regression on them, the obvious way.

timm's documentation, "Feature Extraction" (create_model with num_classes=0) and its data configuration; scikit-learn's user
guide on LogisticRegression and pipelines (scale, then fit), and its page on model persistence (joblib). Channels last, as
PyTorch's pages advise for convolutions.
"""

# for the benchmark
import csv
import json
import sys
from pathlib import Path

photos, weights, out, mode, epochs, seed = Path(sys.argv[1]), sys.argv[2], Path(sys.argv[3]), *sys.argv[4:]
if mode != "head":
    print("scikit-learn learns on features: the network stays as it is")
    sys.exit(3)
# end
import joblib
import timm
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch.utils.data import DataLoader
from torchvision.datasets import ImageFolder

network = timm.create_model(
    "tf_efficientnet_lite0", pretrained=True, num_classes=0, pretrained_cfg_overlay={"file": weights}
)
network.eval().to(memory_format=torch.channels_last)
transform = timm.data.create_transform(**timm.data.resolve_model_data_config(network), is_training=False)


def features(folder):
    """(n, 1280) float32, and the class of each photo as a number."""
    images = ImageFolder(folder, transform)
    with torch.inference_mode():
        batches = DataLoader(images, batch_size=8, num_workers=2)
        parts = [(network(batch.to(memory_format=torch.channels_last)), labels) for batch, labels in batches]
    return torch.cat([part for part, _ in parts]).numpy(), torch.cat([labels for _, labels in parts]).numpy(), images


x, y, learned = features(photos / "train")
model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000, random_state=int(seed))).fit(x, y)
x_held_out, y_held_out, held_out = features(photos / "val")
print("held-out accuracy", model.score(x_held_out, y_held_out))
(out / "artefact").mkdir()
joblib.dump({"classifier": model, "classes": learned.classes}, out / "artefact" / "head.joblib")
torch.save(network.state_dict(), out / "artefact" / "network.pth")
# for the benchmark
with (out / "heldout.csv").open("w", newline="") as file:
    table = csv.writer(file)
    table.writerow(["photo", "label"])
    for (path, _), named in zip(held_out.samples, model.predict(x_held_out), strict=True):
        table.writerow([Path(path).relative_to(photos / "val").as_posix(), learned.classes[named]])
(out / "epochs.json").write_text(json.dumps([]))
# end
