"""How fast jaxdefend is, against Keras and against itself: `python -m benchmarks [--quick] [--out DIR]`."""
