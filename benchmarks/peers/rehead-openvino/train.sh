# Another engine for the frozen network, a choice of docs/guide.md: quicker where the CPU multiplies in bfloat16 itself.
# for the benchmark
set -e
PHOTOS=$1 SEED=$6
# end
rehead tune "$PHOTOS" --engine openvino-bf16 --seed "$SEED" --out run --no-report
