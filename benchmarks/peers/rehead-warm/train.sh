# Another head on photos that rehead has seen: the features come from the store; the head, with other weights of the classes,
# is solved, verified, exported and checked anew, in a process of its own.
# for the benchmark
set -e
PHOTOS=$1 SEED=$6
# end
rehead tune "$PHOTOS" --class-weight balanced --seed "$SEED" --out run --no-report
