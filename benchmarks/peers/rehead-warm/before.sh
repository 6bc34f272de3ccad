# The first head on these photos, by which their features come into the store.
rehead tune "$1" --train head --seed "$6" --out first --no-report
