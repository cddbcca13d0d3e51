"""``python -m recallm_core.train``."""

from recallm_core.cli.train import main

raise SystemExit(main())
