"""All comparisons, one after the other."""

import sys

from benchmarks import cold_start, curve, devices, forward, growth, other_nets, strip
from benchmarks.report import main

if __name__ == "__main__":
    sys.exit(main(forward.rows, curve.rows, strip.rows, cold_start.rows, growth.rows, devices.rows, other_nets.rows))
