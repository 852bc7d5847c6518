"""What a run costs: the price table and the ledger."""
