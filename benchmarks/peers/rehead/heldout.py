"""What a run of rehead wrote of its held-out photos and epochs, as the benchmark wants it: heldout.csv and epochs.json.

And its bundle as the artefact. Runs unmeasured: none of it is a user's.
"""

import csv
import json
import sys
from pathlib import Path

from safetensors.numpy import load_file

run, out = Path(sys.argv[1]) / "run", Path(sys.argv[2])
(run / "bundle").rename(out / "artefact")
classes = json.loads((out / "artefact" / "rehead.json").read_text())["classes"]
with (run / "catalog.csv").open(newline="") as file:
    paths = [row["path"] for row in csv.DictReader(file)]
outputs = load_file(run / "logits.safetensors")  # rows are those of the catalog
with (out / "heldout.csv").open("w", newline="") as file:
    table = csv.writer(file)
    table.writerow(["photo", "label"])
    for row, best in zip(outputs["held_out"].tolist(), outputs["logits"].argmax(1).tolist(), strict=True):
        table.writerow([paths[row].removeprefix("val/"), classes[best]])
metrics = run / "metrics.jsonl"  # seconds: of the training part of each epoch
lines = metrics.read_text().splitlines() if metrics.is_file() else []
(out / "epochs.json").write_text(json.dumps([json.loads(line)["seconds"] for line in lines]))
