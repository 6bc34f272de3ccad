# docs/guide.md: name one photo with a bundle.
# for the benchmark
ARTEFACT=$1 PHOTO=$2
# end
rehead predict "$ARTEFACT" "$PHOTO" --format csv --top 1 > named.csv
# for the benchmark
tail -n 1 named.csv | cut -d, -f2
# end
