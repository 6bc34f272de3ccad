# Another head on photos that rehead has seen: the features come from the store; the head, with other weights of the classes,
# is solved, verified, exported and checked anew, in a process of its own.
# for the benchmark
set -e
PHOTOS=$1 OUT=$3 SEED=$6 HERE=$(dirname "$0")
# end
rehead tune "$PHOTOS" --class-weight balanced --seed "$SEED" --out run --no-report
# for the benchmark
mv run/bundle "$OUT/artefact"
python "$HERE/../rehead/heldout.py" run "$OUT"
# end
