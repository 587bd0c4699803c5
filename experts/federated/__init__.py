"""Train one expert over institutions that share no data, only differences of small adapters.

Start reading at `server_app.py` (the rounds), `bank_app.py` (what a bank does in one) and `manifest.py` (what
they send each other).
"""
