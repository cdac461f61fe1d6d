"""The commands; the only part that prints and exits."""
