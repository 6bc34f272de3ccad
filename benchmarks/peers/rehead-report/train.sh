# The command of README.md as it stands there: the photos are audited too, and report.html is written.
# for the benchmark
set -e
PHOTOS=$1 SEED=$6
# end
rehead tune "$PHOTOS" --seed "$SEED" --out run
