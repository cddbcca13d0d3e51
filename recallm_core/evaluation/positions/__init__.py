"""Questions over many documents, the one that answers at every position."""
