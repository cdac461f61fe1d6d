"""What is wrong with a log, said before anyone trains on it; :mod:`gru4rec.doctor.examine` runs all checks."""
