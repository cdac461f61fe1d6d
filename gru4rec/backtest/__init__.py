"""How would it have gone? Rolling windows over one log: training anew, updating, and doing nothing, side by side."""
