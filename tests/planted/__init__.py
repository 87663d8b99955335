"""The bugs that `mutants.py` plants, by what they break."""
