"""What a job costs at any size: measured cases, a simulation, and the tables of docs/scale.md; see benchmarks/cost.py."""
