"""What can be told of a run from its ledger: exports, archives, audits, comparisons, lineage."""
