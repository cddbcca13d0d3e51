"""``python -m recallm_core.cli``."""

import sys

from recallm_core.cli import main

sys.exit(main())
