"""Attack a trained expert as a curious user would, and compare what comes out with the accountant's epsilon.

Start reading at `run.py`. An attack that fails proves nothing by itself, so each one is also run where it
must succeed: on an adapter that was overfitted without privacy.
"""
