"""``python -m recallm_core.train``."""

from recallm_core.train import main

raise SystemExit(main())
