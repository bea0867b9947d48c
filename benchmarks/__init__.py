"""What is measured, and how to run it again: one module per question, listed in benchmarks/README.md."""
