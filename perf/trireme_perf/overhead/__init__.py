"""What being watched costs: CPU of server and client per user, with and without the ledger and the metrics."""
