"""From records to acknowledged batches: batcher, spool, store, sender."""
