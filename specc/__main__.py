"""python -m specc: the command line."""

from specc.cli import main

main()
