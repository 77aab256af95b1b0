"""Its folder goes on the path, so that every test can ``from ranks import run_ranks``."""
