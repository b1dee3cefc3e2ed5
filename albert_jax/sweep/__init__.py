"""Many runs in one command: tables of the paper, and searches over settings and seeds."""
