"""``python -m recallm_core.evaluation``."""

import sys

from recallm_core.cli.eval import main

sys.exit(main(sys.argv[1:]))
