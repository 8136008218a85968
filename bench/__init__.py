"""Side-by-side measurements: `python -m bench` runs them and writes docs/benchmarks.md."""
