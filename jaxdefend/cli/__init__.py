"""What the commands share and nothing below them knows: options, the terminal, exit status, Ctrl-C."""
