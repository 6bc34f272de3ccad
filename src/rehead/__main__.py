"""`python -m rehead` is the program `rehead`."""

from rehead.cli.commands import main

main()
