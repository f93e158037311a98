"""What being watched costs: CPU of server and client per user, with and without ledger, metrics and tracing."""
