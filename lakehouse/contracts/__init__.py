"""One contract per table, one module per layer; `base` says what a contract is."""
