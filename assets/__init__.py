"""What exists: one module per layer, each asset a Delta table. `skin` is what they share; the work is done in `lakehouse.flow`."""
