"""What all benches share: the report, the clock, the machine's description, and runs that nobody watches."""
