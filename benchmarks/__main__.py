"""All comparisons, one after the other."""

import sys

from benchmarks import cold_start, curve, devices, forward, growth, other_nets, strip, training
from benchmarks.report import main

if __name__ == "__main__":
    scripts = (forward, curve, strip, cold_start, growth, devices, other_nets, training)
    sys.exit(main(*(script.rows for script in scripts)))
