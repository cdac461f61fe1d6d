"""Reading models of other programs, executing nothing."""
