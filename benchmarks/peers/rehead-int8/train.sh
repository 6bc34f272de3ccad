# The frozen network in 8 bits, a choice of docs/guide.md: quicker where the CPU has 8-bit dot products, and a smaller bundle.
# for the benchmark
set -e
PHOTOS=$1 SEED=$6
# end
rehead tune "$PHOTOS" --quantize int8 --seed "$SEED" --out run --no-report
