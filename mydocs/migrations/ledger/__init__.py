"""Keep the ledger and the lease, and plan what is left to do."""
