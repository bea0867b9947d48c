"""Which assets run together (`jobs.of_site`), and the refresh of everything that is stale (`jobs.refresh`)."""
