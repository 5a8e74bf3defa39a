import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
if str(ROOT) not in sys.path:  # the benchmarks are no part of the installed package
    sys.path.insert(0, str(ROOT))
