"""Networks: one published architecture a file, its configuration beside it."""
