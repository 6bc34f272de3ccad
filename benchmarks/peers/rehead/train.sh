# rehead as README.md and docs/guide.md show it: one command on a folder with train/ and val/, whose sides are kept.
# Its default backbone is tf_efficientnet_lite0 with the weights of the package that WEIGHTS was made from.
# for the benchmark
set -e
PHOTOS=$1 MODE=$4 EPOCHS=$5 SEED=$6
# end
case $MODE in
    head) LEARNS="--train head" ;;
    last) LEARNS="--train last:2 --epochs $EPOCHS" ;;  # blocks.6, conv_head with its norm, and the head
    full) LEARNS="--train all --augment crop --epochs $EPOCHS" ;;
esac
rehead tune "$PHOTOS" $LEARNS --seed "$SEED" --out run --no-report
