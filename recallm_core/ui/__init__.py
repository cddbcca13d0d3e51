"""One local page: ask your own files, and click a quote to see it in its source."""
