# The command of README.md as it stands there: the photos are audited too, and report.html is written.
# for the benchmark
set -e
PHOTOS=$1 OUT=$3 SEED=$6 HERE=$(dirname "$0")
# end
rehead tune "$PHOTOS" --seed "$SEED" --out run
# for the benchmark
mv run/bundle "$OUT/artefact"
python "$HERE/../rehead/heldout.py" run "$OUT"
# end
